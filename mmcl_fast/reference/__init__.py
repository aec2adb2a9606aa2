"""Reference implementation in plain PyTorch: one equation of the paper per function.

Not optimised. All other implementations are tested against these functions, and benchmarks call
them "reference PyTorch". Imports torch only.
"""

from mmcl_fast.reference.contrastive import info_nce as info_nce
from mmcl_fast.reference.data import augment as augment
from mmcl_fast.reference.data import signal_patches as signal_patches
from mmcl_fast.reference.descent import gradient_descent_step as gradient_descent_step
from mmcl_fast.reference.dynamics import Keys as Keys
from mmcl_fast.reference.dynamics import derivative as derivative
from mmcl_fast.reference.dynamics import gamma_increment as gamma_increment
from mmcl_fast.reference.dynamics import noise_memorisation as noise_memorisation
from mmcl_fast.reference.dynamics import rho_increment as rho_increment
from mmcl_fast.reference.dynamics import signal_learning as signal_learning
from mmcl_fast.reference.dynamics import weights_from_coefficients as weights_from_coefficients
from mmcl_fast.reference.encoder import activation as activation
from mmcl_fast.reference.encoder import embedding as embedding
from mmcl_fast.reference.encoder import features as features
from mmcl_fast.reference.evaluation import fit_logistic_head as fit_logistic_head
from mmcl_fast.reference.evaluation import ood_accuracy as ood_accuracy
from mmcl_fast.reference.family import dcl as dcl
from mmcl_fast.reference.family import nt_xent as nt_xent
from mmcl_fast.reference.family import siglip as siglip
from mmcl_fast.reference.family import sup_con as sup_con
from mmcl_fast.reference.losses import multi_modal_loss as multi_modal_loss
from mmcl_fast.reference.losses import other_label as other_label
from mmcl_fast.reference.losses import single_modal_loss as single_modal_loss
from mmcl_fast.reference.losses import softmax_weights as softmax_weights
from mmcl_fast.reference.similarity import paired_similarity as paired_similarity
from mmcl_fast.reference.similarity import similarity as similarity
from mmcl_fast.reference.variants import direction_loss as direction_loss
from mmcl_fast.reference.variants import logistic_loss as logistic_loss
from mmcl_fast.reference.variants import negative_pairs as negative_pairs
from mmcl_fast.reference.variants import second_layer as second_layer
