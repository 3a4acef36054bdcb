#!/bin/bash
# One extraction over the nodes of a Slurm job: docs/cluster.md says what to change. When the time is up, or the job is
# preempted, it is put back into the queue and goes on where it was.
#
#   sbatch cluster/deploy/slurm.sh
#SBATCH --job-name=otoscope
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --exclusive
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --signal=B:TERM@120
#SBATCH --open-mode=append
#SBATCH --output=otoscope-%j.log
set -euo pipefail
run=
trap '[ -z "$run" ] || { kill -TERM "$run"; wait "$run" || true; }; scontrol requeue "$SLURM_JOB_ID"; exit 0' TERM

DATA=/shared/otoscope
source "$DATA/venv/bin/activate"  # on the shared file system, so that all nodes have it
export RAY_USAGE_STATS_ENABLED=0

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(getent hosts "$head" | awk '{print $1; exit}')
port=$((20000 + SLURM_JOB_ID % 20000))

# On the first node beside the workers' share, on the others alone. Any node but the first may be lost.
srun --no-kill --nodes=1 --ntasks=1 --nodelist="$head" --overlap \
    ray start --head --node-ip-address="$address" --port="$port" --include-dashboard=false --block &
for _ in $(seq 60); do ! ray status --address="$address:$port" >/dev/null 2>&1 || break; sleep 2; done
ray status --address="$address:$port" >/dev/null || { echo "the head did not start within two minutes"; exit 1; }
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    srun --no-kill --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" --overlap \
        --kill-on-bad-exit=0 ray start --address="$address:$port" --block &
fi

otoscope extract "$DATA/store" --encoder "m2d:$DATA/models/m2d" --corpus "$DATA/corpus.csv" --audio-root "$DATA/audio" --task speech --executor ray --address "$address:$port" --gpus-per-actor 1 --cpus-per-actor 8 --report "$DATA/report-$SLURM_JOB_ID.json" &
run=$!
wait "$run"
