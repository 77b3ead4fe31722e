"""Solutions to the exercises of lesson 07. Try them yourself first: the checkers tell you where you stand."""

import numpy as np
import torch

from edgeconnect_lite.losses import adversarial_loss, reconstruction_loss


def near_and_far(after, before, near, mask):
    change = np.abs(after.astype(float) - before).mean(axis=2)
    return change[near & mask].mean(), change[~near & mask].mean()


def half_drawn(true, predicted, known, near, generator):
    width = true.shape[-1]
    column = torch.randint(width + 1, (len(true), 1, 1, 1), generator=generator)
    inside = torch.where(torch.arange(width) < column, true, predicted)
    return torch.where(near > 0, inside, known)


def judged_step(painter, judge, optimizer, given, photo, mask):
    painted = painter(given)
    loss = reconstruction_loss(painted, photo, mask) + 0.1 * adversarial_loss(judge(painted))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()
