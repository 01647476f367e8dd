#!/usr/bin/env bash
# Encrypts a stream at one site and decrypts it at another; here both are this machine.
#
#   simulator --> consumer, encrypts --> consumer, decrypts
#   site:image        site:encrypted         site:plain
#
# Run it with no arguments. It ends with 0 when every image arrived and passed all checks.
set -euo pipefail

# Loopback only.
export EPICS_PVA_ADDR_LIST=127.0.0.1 EPICS_PVA_AUTO_ADDR_LIST=NO
export EPICS_PVAS_INTF_ADDR_LIST=127.0.0.1 EPICS_PVAS_BEACON_ADDR_LIST=127.0.0.1
export EPICS_PVAS_AUTO_BEACON_ADDR_LIST=NO

work=$(mktemp -d)
started=()
finish() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
    rm -rf "$work"
}
trap finish EXIT

# Each site makes a pair, and gives its .pub.pem file to the other.
export BEAMLINE_PASSPHRASE="only for this example"
pvapy-stream keygen beamline --kind signing --directory "$work" --passphrase-env BEAMLINE_PASSPHRASE
pvapy-stream keygen archive --kind encryption --directory "$work" --no-passphrase

# The archive: decrypts what the beamline signed.
pvapy-stream consumer --input-channel site:encrypted --output-channel site:plain \
    --server-queue-size 500 --ledger "$work/archive.json" \
    --processor-class pvapy_stream.processors.AdImageDecryptor \
    --processor-args '{"stream": "scan 1",
        "decryptionPrivateKey": "'"$work"'/archive.pem",
        "senderPublicKeys": ["'"$work"'/beamline.pub.pem"]}' &
archive=$!
started+=("$archive")

# The beamline: encrypts for the archive.
pvapy-stream consumer --input-channel site:image --output-channel site:encrypted \
    --server-queue-size 500 --ledger "$work/beamline.json" \
    --processor-class pvapy_stream.processors.AdImageEncryptor \
    --processor-args '{"stream": "scan 1",
        "recipientPublicKey": "'"$work"'/archive.pub.pem",
        "signingPrivateKey": "'"$work"'/beamline.pem",
        "passphraseEnv": "BEAMLINE_PASSPHRASE"}' &
beamline=$!
started+=("$beamline")

# The simulator begins when the beamline and a second client are there; the second comes when the
# archive has its first object, so that nothing is sent too early.
pvapy-stream sim --channel-name site:image --n-x-pixels 256 --n-y-pixels 256 --frame-rate 100 \
    --n-publish 300 --wait-for-clients 2 --shutdown-delay 4 --report-period 0 &
simulator=$!
started+=("$simulator")
timeout 60 python - <<'PYTHON'
import time
import pvaccess as pva

def wait_for(name):
    while True:
        channel = pva.Channel(name)
        channel.setTimeout(1.0)
        try:
            channel.get("field(uniqueId)")
            return channel
        except pva.PvaException:
            time.sleep(0.2)

wait_for("site:plain")
client = wait_for("site:image")
time.sleep(3)
PYTHON

wait "$simulator"
for pid in "$beamline" "$archive"; do
    kill "$pid"
    wait "$pid"
done
started=()
pvapy-stream audit --strict "$work/beamline.json" "$work/archive.json"
