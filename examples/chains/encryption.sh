#!/usr/bin/env bash
# Encrypts a stream at one site and decrypts it at another; here both are this machine.
#
#   sim --> consumer 1, encrypts --> consumer 2, decrypts --> write
#
. "$(dirname "$0")/common.sh"

# Each site makes a pair, and gives its .pub.pem file to the other.
export BEAMLINE_PASSPHRASE="only for this example"
pvapy-stream keygen beamline --kind signing --directory "$work" --passphrase-env BEAMLINE_PASSPHRASE
pvapy-stream keygen archive --kind encryption --directory "$work" --no-passphrase

stage beamline consumer --input-channel "${pv}image" --output-channel "${pv}encrypted" \
    --status-channel "${pv}status:1" --server-queue-size 500 \
    --processor-class $processors.AdImageEncryptor \
    --processor-args '{"stream": "scan 1",
        "recipientPublicKey": "'"$work"'/archive.pub.pem",
        "signingPrivateKey": "'"$work"'/beamline.pem",
        "passphraseEnv": "BEAMLINE_PASSPHRASE"}'
stage archive consumer --consumer-id 2 --input-channel "${pv}encrypted" \
    --output-channel "${pv}plain" --status-channel "${pv}status:2" --server-queue-size 500 \
    --processor-class $processors.AdImageDecryptor \
    --processor-args '{"stream": "scan 1",
        "decryptionPrivateKey": "'"$work"'/archive.pem",
        "senderPublicKeys": ["'"$work"'/beamline.pub.pem"]}'
stage write write --consumer-id 3 --input-channel "${pv}plain" --output "$work/plain.h5" \
    --status-channel "${pv}status:3" --server-queue-size 500

source_of "${pv}status:1,${pv}status:2,${pv}status:3"
finish "$work"/{sim,beamline,archive,write}.json
exit "$failed"
