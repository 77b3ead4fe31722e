"""Solutions to the exercises of lesson 05. Try them yourself first: the checkers tell you where you stand."""

from edgeconnect_lite.losses import discriminator_loss


def hole_error(painted, photo, mask):
    return ((painted - photo).abs() * mask).sum() / (painted.shape[1] * mask.sum())


def my_gram_matrix(features):
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / flat[0].numel()


def discriminator_step(d, optimizer, real, fake):
    loss = discriminator_loss(d(real), d(fake.detach()))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()
