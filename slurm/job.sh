# shellcheck shell=bash
# What the scripts here share; they source it, nobody submits it. The variables are explained in docs/cluster.md.
#   prepare          the environment: folder, modules, container, interpreter
#   preflight WORD…  every node looks at itself and its links; options of `rrg preflight`
#   train WORD…      one launcher per node; signals become a checkpoint and another life of this job, as long as the budgets last
#   begin FOLDER, finish FOLDER CODE   around another command that goes on where it was interrupted, with budgets of its own
#   each WORD…       a command of `rrg` by all processes of all nodes; once WORD…: by one
#   outside WORD…    a command of `rrg` that starts steps or jobs itself: on this host, not in the container, which has no Slurm
set -euo pipefail

: "${RRG_HOME:=${SLURM_SUBMIT_DIR:-$PWD}}" "${RRG_RESTART:=requeue}" "${RRG_SIGNAL_LEAD:=300}" "${RRG_PREFLIGHT:=1}"
export RRG_HOME
asked="" left="" step="" words=("$@")

prepare() {
    cd "$RRG_HOME"
    # shellcheck disable=SC2086 # several modules are several words
    if [ -n "${RRG_MODULES:-}" ]; then module load $RRG_MODULES; fi
    # shellcheck disable=SC1090 # the site's own file
    if [ -n "${RRG_SETUP:-}" ]; then source "$RRG_SETUP"; fi
    if [ -z "${RRG_PYTHON:-}" ]; then
        RRG_PYTHON=python3
        [ -n "${RRG_CONTAINER:-}" ] || [ ! -x .venv/bin/python ] || RRG_PYTHON=$RRG_HOME/.venv/bin/python
    fi
    export PYTHONPATH="$RRG_HOME:$RRG_HOME/kernels${PYTHONPATH:+:$PYTHONPATH}"
    if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; fi
    container=() step_options=()
    if [ -n "${RRG_CONTAINER:-}" ]; then
        local bind="$RRG_HOME${RRG_BIND:+,$RRG_BIND}"
        case ${RRG_CONTAINER_KIND:-apptainer} in
        apptainer) container=(apptainer exec --nv --bind "$bind" --pwd "$RRG_HOME" "$RRG_CONTAINER") ;;
        pyxis) step_options=(--container-image="$RRG_CONTAINER" --container-workdir="$RRG_HOME" --container-mounts="${bind//,/:rw,}:rw") ;;
        *) echo "rrg: RRG_CONTAINER_KIND: '$RRG_CONTAINER_KIND' is none of apptainer, pyxis" >&2; exit 2 ;;
        esac
    fi
    # shellcheck disable=SC2206 # several options are several words
    step_options+=(--export=ALL ${RRG_SRUN:-})
    trap 'forward USR1' USR1
    trap 'forward TERM' TERM
}

time_left() { # seconds until the time limit, as it is now; nothing where there is none. A preemption does not change it.
    squeue --noheader --jobs="$SLURM_JOB_ID" --format=%L 2>/dev/null | awk -F '[-:]' '/^[0-9:-]+$/ {
        unit = 1
        for (i = NF; i; i--) { seconds += $i * unit; unit *= NF - i == 2 ? 24 : 60 }
        print seconds
    }' || true
}

forward() { # a signal goes to the step, which tells every node
    [ "$asked" = TERM ] || asked=$1
    if [ -n "$step" ]; then kill "-$1" "$step" 2>/dev/null || true; fi
    if [ "$1" = USR1 ] && [ -z "$left" ]; then left=$(time_left); fi
}

waited() { # run a step in the background, so that a signal is heard meanwhile; its exit code
    local code=0
    if [ -n "$asked" ]; then return 75; fi
    "$@" &
    step=$!
    if [ -n "$asked" ]; then kill "-$asked" "$step" 2>/dev/null || true; fi # it came between the two lines before
    while wait "$step" && code=0 || code=$?; kill -0 "$step" 2>/dev/null; do :; done
    wait "$step" && code=0 || code=$?
    step=""
    return "$code"
}

# exec: the process that `waited` signals has to be srun itself. Both therefore run in a subshell.
on_nodes() { exec srun --ntasks-per-node=1 --ntasks="$SLURM_JOB_NUM_NODES" --kill-on-bad-exit=1 --wait=60 "${step_options[@]}" "$@"; }
on_first() { exec srun --nodes=1 --ntasks=1 "${step_options[@]}" "$@"; }
each() { waited on_nodes "${container[@]}" "$RRG_PYTHON" -m launcher.node "$@"; }
once() { waited on_first "${container[@]}" "$RRG_PYTHON" -m rrg.cli "$@"; }
outside() {
    local python=$RRG_PYTHON
    if [ -n "${RRG_CONTAINER:-}" ]; then
        python=${RRG_OUTSIDE:-$RRG_HOME/.venv/bin/python}
        if ! command -v "$python" >/dev/null; then
            echo "rrg: RRG_OUTSIDE: '$python' is no program; name a Python outside the container that has rrg installed (no GPU needed)" >&2
            exit 2
        fi
    fi
    RRG_STEP=$(printf '%q ' "${container[@]}" "$RRG_PYTHON") RRG_STEP_OPTIONS=$(printf '%q ' "${step_options[@]}") "$python" -m rrg.cli "$@"
}
lives() { # no step where it can be helped: when Slurm is ending the job it starts none
    if [ "${RRG_CONTAINER_KIND:-}" = pyxis ]; then (on_first "$RRG_PYTHON" -m launcher.lives "$@"); return; fi
    "${container[@]}" "$RRG_PYTHON" -m launcher.lives "$@"
}

preflight() {
    if [ "$RRG_PREFLIGHT" = 0 ]; then return; fi
    waited on_nodes "${container[@]}" "$RRG_PYTHON" -m rrg.cli preflight "$@"
}

train() { # RECIPE key=value…, into RRG_OUTPUT; ends the script
    local code=0 name=$1
    case $name in *.yaml | *.yml) name=${name##*/} name=${name%.*} ;; esac
    : "${RRG_OUTPUT:=runs/$name}"
    begin "$RRG_OUTPUT"
    preflight --output "$RRG_OUTPUT" --shards "$RRG_SHARDS" && each train "$@" output="$RRG_OUTPUT" data.shards="$RRG_SHARDS" || code=$?
    finish "$RRG_OUTPUT" "$code" "$RRG_OUTPUT/interrupted.json"
    exit 0
}

begin() { # FOLDER: a life of this job begins, counted there; ends the script where the budgets allow no more
    local verdict
    verdict=$(lives begin "$1") || exit 2
    [ "$verdict" = begin ] || exit 1
}

finish() { # FOLDER CODE [FILE]: the life ended so, and FILE says by which signal; another one, or the end of the script, unless CODE is 0
    local code=$2 verdict late=()
    if [ -n "$asked" ] && [ "$code" != 0 ] && [ "$code" != 2 ] && [ "$code" != 71 ]; then code=75; fi
    # When a node fails, srun ends the others by SIGTERM, and theirs is the larger exit code.
    if [ -z "$asked" ] && [ "$code" = 75 ] && ! grep -qs SIGUSR1 "${3:-/dev/null}"; then code=1; fi
    if [ "$code" != 0 ]; then trap - USR1 TERM; fi
    # Slurm may send its warning a minute early.
    if [ "$asked" = USR1 ] && [ "${left:-999999}" -le $((RRG_SIGNAL_LEAD + 90)) ]; then late=(--late); fi
    verdict=$(lives end "$1" "$code" "${late[@]}") || exit 2
    # After SIGTERM it is Slurm that ends this job, and Slurm that knows whether it begins again.
    if [ "$verdict" = again ] && [ "$asked" != TERM ]; then again; fi
    if [ "$code" != 0 ]; then exit "$code"; fi
    asked="" # it came too late to stop anything: what follows is short
}

again() { # another life of this job
    case $RRG_RESTART in
    requeue) scontrol requeue "$SLURM_JOB_ID" && sleep 600 ;; # Slurm ends this script within seconds
    chain)
        # shellcheck disable=SC2086 # several options are several words
        RRG_CHAINED=1 sbatch --dependency="afterany:$SLURM_JOB_ID" --nodes="$SLURM_JOB_NUM_NODES" --partition="$SLURM_JOB_PARTITION" \
            ${SLURM_JOB_ACCOUNT:+--account="$SLURM_JOB_ACCOUNT"} ${RRG_SBATCH:-} "$RRG_HOME/$RRG_SCRIPT" "${words[@]}"
        ;;
    none) ;;
    *) echo "rrg: RRG_RESTART: '$RRG_RESTART' is none of requeue, chain, none" >&2 ;;
    esac || echo "rrg: the job cannot be started again from here; submit it again, it carries on" >&2
}
