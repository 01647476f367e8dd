# Sourced by the scripts of this folder: loopback, a folder for files, and programs that end in order.
#
#   N=100 INPUT=frames.npy WORK=results ./collector.sh
#
# N is the number of frames, INPUT their source (default: random frames), WORK the folder for
# ledgers and files.

set -euo pipefail

# Loopback only. For several hosts, leave these to your site's settings.
export EPICS_PVA_ADDR_LIST=127.0.0.1 EPICS_PVA_AUTO_ADDR_LIST=NO
export EPICS_PVAS_INTF_ADDR_LIST=127.0.0.1 EPICS_PVAS_BEACON_ADDR_LIST=127.0.0.1
export EPICS_PVAS_AUTO_BEACON_ADDR_LIST=NO
export EPICS_CA_ADDR_LIST=127.0.0.1 EPICS_CA_AUTO_ADDR_LIST=NO
export EPICS_CAS_INTF_ADDR_LIST=127.0.0.1 EPICS_CAS_BEACON_ADDR_LIST=127.0.0.1
export EPICS_CAS_AUTO_BEACON_ADDR_LIST=NO

processors=pvapy_stream.processors
frames=${N:-500}
rate=${RATE:-200}                 # frames/s
pv=${PREFIX:-chain$$:}            # start of all channel names, so that runs do not meet
work=${WORK:-$(mktemp -d)}        # ledgers and files
if [ -n "${INPUT:-}" ]; then images=(--input-file "$INPUT"); else images=(--n-x-pixels 64 --n-y-pixels 48); fi
stages=()                         # process ids, from the source to the end of the chain
failed=0

# stage NAME PROGRAM OPTIONS…: start a program of the chain; it writes $work/NAME.json and NAME.log.
stage() {
    local name=$1
    shift
    pvapy-stream "$@" --ledger "$work/$name.json" >"$work/$name.log" 2>&1 &
    stages+=("$!:$name")
}

# source_of STATUS,… OPTIONS…: the simulator; it begins when the stages with these status channels
# are connected, so no frame is lost at the start.
source_of() {
    local wait_for=$1
    shift
    stage sim sim --channel-name "${pv}image" --n-publish "$frames" --frame-rate "$rate" \
        --report-period 0 --disable-curses --runtime 0 --shutdown-delay 0.5 \
        --wait-for-stages "$wait_for" "${images[@]}" "$@"
    wait "${stages[-1]%%:*}" || { failed=1; cat "$work/sim.log"; }
}

# finish LEDGER…: stop the stages in the order of their start, which is that of the stream, and see
# whether every frame has a fate.
finish() {
    for one in "${stages[@]}"; do
        kill "${one%%:*}" 2>/dev/null || true
        wait "${one%%:*}" || { failed=1; echo "${one#*:} failed:"; cat "$work/${one#*:}.log"; }
    done
    stages=()
    pvapy-stream audit "$@" || failed=1
}

tidy() {
    for one in "${stages[@]}"; do kill -9 "${one%%:*}" 2>/dev/null || true; done
    [ -n "${WORK:-}" ] || rm -rf "$work"
}
trap tidy EXIT
