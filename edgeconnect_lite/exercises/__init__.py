"""Checkers for the lessons' exercises: check_*(your function) says "not attempted yet", "correct", or what is wrong.

A checker calls the function on small inputs of its own. The stub returns None: "not attempted yet" is printed and the
notebook goes on. A wrong answer raises WrongAnswer, which says what came and what was wanted. One module a lesson.
"""

from edgeconnect_lite.exercises.checking import WrongAnswer
from edgeconnect_lite.exercises.lesson_00 import check_edge_effect, check_mask_photo, check_redraw
from edgeconnect_lite.exercises.lesson_01 import check_edge_input, check_noised_edges, check_read_quick_draw
from edgeconnect_lite.exercises.lesson_02 import check_gated_activation, check_gated_backward, check_residual_block
from edgeconnect_lite.exercises.lesson_03 import check_backward_from_yg, check_bytes_moved, check_fused_bias
from edgeconnect_lite.exercises.lesson_04 import check_padding, check_receptive_field, check_step_up
from edgeconnect_lite.exercises.lesson_05 import check_discriminator_step, check_gram_matrix, check_hole_error
from edgeconnect_lite.exercises.lesson_06 import check_best_weight, check_pooled_recall, check_thin_lines
from edgeconnect_lite.exercises.lesson_07 import check_half_drawn, check_judged_step, check_near_and_far
from edgeconnect_lite.exercises.lesson_08 import check_mirrored, check_stroke_effects, check_strokes_held
from edgeconnect_lite.exercises.lesson_09 import check_paired_interval, check_pooled_f1, check_share_above_chance
from edgeconnect_lite.exercises.lesson_10 import check_black_is_hole, check_split_by_person, check_whole_step
