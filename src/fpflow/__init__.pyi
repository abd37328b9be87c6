from . import datasets as datasets
from . import paper as paper
from . import plot as plot
from ._accounting import KLAccount as KLAccount
from ._accounting import TheoremOne as TheoremOne
from ._accounting import kl_account as kl_account
from ._accounting import theorem_one as theorem_one
from ._calculus import Divergence as Divergence
from ._calculus import Exact as Exact
from ._calculus import Hutchinson as Hutchinson
from ._calculus import PotentialJet as PotentialJet
from ._calculus import curl as curl
from ._calculus import divergence as divergence
from ._calculus import laplacian as laplacian
from ._calculus import potential_jet as potential_jet
from ._dynamics import family_drift as family_drift
from ._dynamics import flow_velocity as flow_velocity
from ._excess import ExcessLoss as ExcessLoss
from ._excess import excess_loss as excess_loss
from ._files import DamagedFile as DamagedFile
from ._grid import grid_density_ode as grid_density_ode
from ._grid import grid_density_potential as grid_density_potential
from ._grid import grid_density_sde as grid_density_sde
from ._held_out import HeldOut as HeldOut
from ._held_out import held_out as held_out
from ._hosts import HostLost as HostLost
from ._importance import ImportanceSample as ImportanceSample
from ._importance import importance_sample as importance_sample
from ._importance import pareto_k as pareto_k
from ._likelihood import EvidenceBound as EvidenceBound
from ._likelihood import LogProbChain as LogProbChain
from ._likelihood import LogProbODE as LogProbODE
from ._likelihood import LogProbSDE as LogProbSDE
from ._likelihood import ResidualPaths as ResidualPaths
from ._likelihood import ThroughResidual as ThroughResidual
from ._likelihood import TwistedFilter as TwistedFilter
from ._likelihood import evidence_bound as evidence_bound
from ._likelihood import log_prob_chain as log_prob_chain
from ._likelihood import log_prob_ode as log_prob_ode
from ._likelihood import log_prob_sde as log_prob_sde
from ._likelihood import tuned_chain as tuned_chain
from ._metrics import Estimate as Estimate
from ._metrics import SampleDistance as SampleDistance
from ._metrics import Sinkhorn as Sinkhorn
from ._metrics import W2Result as W2Result
from ._metrics import hellinger as hellinger
from ._metrics import kl_divergence as kl_divergence
from ._metrics import sliced_w2 as sliced_w2
from ._metrics import total_variation as total_variation
from ._metrics import w2_continuous as w2_continuous
from ._metrics import w2_grid as w2_grid
from ._metrics import w2_moments as w2_moments
from ._metrics import w2_samples as w2_samples
from ._model import PotentialMLP as PotentialMLP
from ._model import Raveled as Raveled
from ._model import ScoreFunction as ScoreFunction
from ._model import ScoreMLP as ScoreMLP
from ._model import Transformed as Transformed
from ._model import classifier_guided as classifier_guided
from ._model import from_callback as from_callback
from ._model import from_data_prediction as from_data_prediction
from ._model import from_noise_prediction as from_noise_prediction
from ._model import from_v_prediction as from_v_prediction
from ._model import from_velocity as from_velocity
from ._model import given as given
from ._model import guided as guided
from ._model import in_frame as in_frame
from ._model import load as load
from ._model import save as save
from ._network import NoiseFeatures as NoiseFeatures
from ._network import PotentialNetwork as PotentialNetwork
from ._network import Preconditioned as Preconditioned
from ._network import ResidualMLP as ResidualMLP
from ._network import ScoreNetwork as ScoreNetwork
from ._network import UNet as UNet
from ._noising import Noised as Noised
from ._noising import Noising as Noising
from ._process import EDM as EDM
from ._process import AbstractNoiseLevel as AbstractNoiseLevel
from ._process import AbstractProcess as AbstractProcess
from ._process import AbstractSignal as AbstractSignal
from ._process import CosineSchedule as CosineSchedule
from ._process import GeometricNoise as GeometricNoise
from ._process import HarmonicNoise as HarmonicNoise
from ._process import IsotropicGaussian as IsotropicGaussian
from ._process import LinearPath as LinearPath
from ._process import LinearSchedule as LinearSchedule
from ._process import OrnsteinUhlenbeck as OrnsteinUhlenbeck
from ._process import SubVariancePreserving as SubVariancePreserving
from ._process import TabulatedSchedule as TabulatedSchedule
from ._process import TrigonometricPath as TrigonometricPath
from ._process import VarianceExploding as VarianceExploding
from ._process import VariancePreserving as VariancePreserving
from ._process import check_process as check_process
from ._report import GapReport as GapReport
from ._report import GapSplit as GapSplit
from ._report import NatsGap as NatsGap
from ._report import PointwiseGap as PointwiseGap
from ._report import ReportSettings as ReportSettings
from ._report import gap_report as gap_report
from ._residual import ExactSquare as ExactSquare
from ._residual import HutchinsonSquare as HutchinsonSquare
from ._residual import ResidualNorm as ResidualNorm
from ._residual import ResidualProfile as ResidualProfile
from ._residual import TwoProbeSquare as TwoProbeSquare
from ._residual import WeakForm as WeakForm
from ._residual import WeakResidual as WeakResidual
from ._residual import fp_residual as fp_residual
from ._residual import gauge_free_residual as gauge_free_residual
from ._residual import log_fp_residual as log_fp_residual
from ._residual import residual_norm as residual_norm
from ._residual import residual_profile as residual_profile
from ._residual import score_fp_residual as score_fp_residual
from ._run import TrainingInterrupted as TrainingInterrupted
from ._sample import DDIM as DDIM
from ._sample import ODE as ODE
from ._sample import SDE as SDE
from ._sample import AbstractChain as AbstractChain
from ._sample import AbstractSampler as AbstractSampler
from ._sample import Ancestral as Ancestral
from ._sample import ChainPaths as ChainPaths
from ._sample import EDMHeun as EDMHeun
from ._sample import EulerMaruyama as EulerMaruyama
from ._sample import GaussianChain as GaussianChain
from ._sample import Kernels as Kernels
from ._sample import PredictorCorrector as PredictorCorrector
from ._sample import SampleInfo as SampleInfo
from ._sample import Trajectories as Trajectories
from ._sample import chain_paths as chain_paths
from ._sample import ode_trajectories as ode_trajectories
from ._sample import sample as sample
from ._sample import sample_histogram as sample_histogram
from ._sample import sample_ode as sample_ode
from ._sample import sample_sde as sample_sde
from ._terms import AbstractTerm as AbstractTerm
from ._terms import DenoisingScoreMatching as DenoisingScoreMatching
from ._terms import Distillation as Distillation
from ._terms import EDMWeighting as EDMWeighting
from ._terms import FlowMatching as FlowMatching
from ._terms import FokkerPlanck as FokkerPlanck
from ._terms import Objective as Objective
from ._terms import ScoreFokkerPlanck as ScoreFokkerPlanck
from ._terms import SNRWeighting as SNRWeighting
from ._terms import UniformFokkerPlanck as UniformFokkerPlanck
from ._terms import data_weighting as data_weighting
from ._terms import likelihood_weighting as likelihood_weighting
from ._terms import no_weighting as no_weighting
from ._terms import noise_weighting as noise_weighting
from ._terms import v_weighting as v_weighting
from ._times import AbstractTimes as AbstractTimes
from ._times import BetaTime as BetaTime
from ._times import NoiseRatioTime as NoiseRatioTime
from ._times import UniformTime as UniformTime
from ._train import AbstractOptimiser as AbstractOptimiser
from ._train import AbstractSchedule as AbstractSchedule
from ._train import Adam as Adam
from ._train import Cosine as Cosine
from ._train import History as History
from ._train import Soap as Soap
from ._train import Staged as Staged
from ._train import TrainingDiverged as TrainingDiverged
from ._train import TrainResult as TrainResult
from ._train import TrainState as TrainState
from ._train import distil_potential as distil_potential
from ._train import train as train
from ._train import train_step as train_step
from ._transform import AbstractTransform as AbstractTransform
from ._transform import Compose as Compose
from ._transform import Dequantised as Dequantised
from ._transform import Logit as Logit
from ._transform import Standardise as Standardise
from ._transform import Whiten as Whiten
from ._types import DataLaw as DataLaw
from ._types import PotentialModel as PotentialModel
from ._types import ScoreModel as ScoreModel
from ._window import GridDensity as GridDensity
from ._window import Window as Window

# What `from fpflow import *` brings, in the order of use; all other names are as public.
__all__ = [  # noqa: RUF022
    "OrnsteinUhlenbeck",
    "datasets",
    "PotentialMLP",
    "ScoreMLP",
    "train",
    "save",
    "load",
    "sample_ode",
    "sample_sde",
    "log_prob_ode",
    "log_prob_sde",
    "grid_density_ode",
    "grid_density_sde",
    "w2_grid",
    "gap_report",
    "plot",
]
