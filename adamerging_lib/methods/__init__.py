"""Merging methods: one file a method, one registry, one calling convention."""

from __future__ import annotations

from .adamerging import RECIPES as RECIPES
from .adamerging import adamerge as adamerge
from .consensus import consensus_ta as consensus_ta
from .consensus import tall_masks as tall_masks
from .dare import dare as dare
from .doge import doge_ta as doge_ta
from .doge import doge_vectors as doge_vectors
from .emr import emr as emr
from .experts import pseudo_labels as pseudo_labels
from .fisher import fisher as fisher
from .imitation import keeps as keeps
from .iso import iso_c as iso_c
from .iso import iso_cts as iso_cts
from .lines import lines as lines
from .merged import Fit as Fit
from .merged import Merged as Merged
from .mtl import joint_training as joint_training
from .pcb import pcb as pcb
from .prodistill import prodistill as prodistill
from .reference import individual as individual
from .reference import traditional_mtl as traditional_mtl
from .reference import zero_shot as zero_shot
from .registry import Method as Method
from .registry import merge as merge
from .registry import methods as methods
from .registry import register as register
from .regmean import regmean as regmean
from .regmean import regmean_pp as regmean_pp
from .run import run_method as run_method
from .supermerge import supermerge as supermerge
from .surgery import surgery as surgery
from .taps import taps as taps
from .task_arithmetic import task_arithmetic as task_arithmetic
from .ties import PAPER_EXACT_KEEP as PAPER_EXACT_KEEP
from .ties import ties as ties
from .ties import ties_split as ties_split
from .tinting import tinting as tinting
from .tsv import tsv_m as tsv_m
from .weight_averaging import weight_averaging as weight_averaging
from .wemoe import wemoe as wemoe
from .wudi import wudi as wudi
from .wudi import wudi_adam as wudi_adam
from .zipit import unit_matches as unit_matches
from .zipit import zipit as zipit
