"""``keygen`` (set up): make a pair of keys for encrypting or signing a stream."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pvapy_stream.cli.command import CliCommand
from pvapy_stream.cli.main import PROG
from pvapy_stream.errors import SettingsError

KINDS = ("encryption", "signing")

_EPILOG = """\
The recipient makes a pair for encryption and gives NAME.pub.pem to the sender; the sender makes a
pair for signing and gives its NAME.pub.pem to the recipient. NAME.pem stays with its owner.

examples:
  pvapy-stream keygen beamline --kind signing
  pvapy-stream keygen archive --kind encryption --directory ~/keys --passphrase-file ~/keys/secret
exit codes: 0 written; 1 a file is there already, or cannot be written; 2 wrong options
"""


def add_arguments(made: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    made.add_argument("name", help="name of the pair, without .pem")
    made.add_argument(
        "--directory", default=".", metavar="DIR", help="where to write the files [default .]"
    )
    made.add_argument(
        "--kind",
        choices=KINDS,
        default="encryption",
        help="what it is for: encryption (RSA) or signing (Ed25519) [default encryption]",
    )
    source = made.add_mutually_exclusive_group()
    source.add_argument(
        "--passphrase-file",
        default="",
        metavar="FILE",
        help="file whose first line is the passphrase of NAME.pem",
    )
    source.add_argument(
        "--passphrase-env",
        default="",
        metavar="NAME",
        help="environment variable with the passphrase of NAME.pem [default: ask at the terminal]",
    )
    source.add_argument(
        "--no-passphrase",
        action="store_true",
        help="leave NAME.pem unencrypted: anyone who can read the file can use the key",
    )


def run(options: argparse.Namespace) -> int:
    """Make the keys and write them.

    Raises:
        SettingsError: the name is not one of a file.
        CryptoError: there is no passphrase, a file is there already, or cannot be written.
    """
    # Imported late: --help needs no cryptography.
    from pvapy_stream.crypto.keys import Passphrase, check_free, key_id, make_key, write_pair

    name, directory = options.name, Path(options.directory).expanduser()
    if not name or name.startswith(".") or Path(name).name != name:
        raise SettingsError(
            f"{name!r} is not a name for files; give one such as beamline, and the folder with"
            " --directory"
        )
    # Before a passphrase is typed and seconds of work are done.
    check_free(name, directory)
    source = Passphrase(options.passphrase_file, options.passphrase_env)
    passphrase = None if options.no_passphrase else source.get(f"new key {name}", twice=True)
    key = make_key(options.kind)
    private, public = write_pair(key, name, directory, passphrase)
    sys.stdout.write(
        f"{options.kind} key {key_id(key).hex()}\n"
        f"  {private}: the private key; keep it{'' if passphrase else ', it has no passphrase'}\n"
        f"  {public}: the public key; give it to the other side\n"
    )
    return 0


COMMAND = CliCommand(
    f"{PROG} keygen",
    "Make a pair of keys: NAME.pem, the private one, and NAME.pub.pem, the public one.",
    run,
    _EPILOG,
    add_arguments=add_arguments,
)
main = COMMAND.main
