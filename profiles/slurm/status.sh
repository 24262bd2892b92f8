#!/usr/bin/env bash
# What has become of a Slurm job, in one of the three words that Snakemake understands.
state=$(sacct --jobs "$1" --allocations --noheader --parsable2 --format State | head -n 1)
case ${state%% *} in
    COMPLETED) echo success ;;
    BOOT_FAIL | CANCELLED | DEADLINE | FAILED | NODE_FAIL | OUT_OF_MEMORY | PREEMPTED | REVOKED | TIMEOUT) echo failed ;;
    *) echo running ;; # also while the accounting has not heard of the job
esac
