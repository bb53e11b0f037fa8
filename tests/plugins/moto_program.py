"""moto's server as a program: it prints its address (an argument
is its port), and ends with its standard input.

Two things that AWS does and moto does not are added: putting into a deleted secret is refused, and
a put after a move of AWSCURRENT takes the label from the version that has it now.
"""

import sys
from typing import Any

from moto.secretsmanager.exceptions import InvalidRequestException
from moto.secretsmanager.models import SecretsManagerBackend
from moto.server import ThreadedMotoServer

put = SecretsManagerBackend.put_secret_value
move = SecretsManagerBackend.update_secret_version_stage


def put_secret_value(self: Any, secret_id: str, *args: Any, **kwargs: Any) -> Any:
    """As AWS answers for a secret that is deleted."""
    if secret_id in self.secrets and self.secrets[secret_id].is_deleted():
        raise InvalidRequestException(
            "You can't perform this operation on the secret because it was marked for deletion."
        )
    return put(self, secret_id, *args, **kwargs)


def update_secret_version_stage(self: Any, secret_id: str, *args: Any, **kwargs: Any) -> Any:
    """As AWS remembers which version is current."""
    answer = move(self, secret_id, *args, **kwargs)
    secret = self.secrets[secret_id]
    for version, content in secret.versions.items():
        if "AWSCURRENT" in content["version_stages"]:
            secret.default_version_id = version
    return answer


setattr(SecretsManagerBackend, "put_secret_value", put_secret_value)  # noqa: B010  mypy
setattr(SecretsManagerBackend, "update_secret_version_stage", update_secret_version_stage)  # noqa: B010  mypy

if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    sys.stdout.write(f"http://{host}:{port}\n")
    sys.stdout.flush()
    sys.stdin.read()
