"""`atlasctl completion`."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL; commands, options and services are completed.

    bash: `source <(atlasctl completion bash)` in ~/.bashrc. zsh: the same in ~/.zshrc. fish:
    `atlasctl completion fish > ~/.config/fish/completions/atlasctl.fish`.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    print(kind(ctx.find_root().command, {}, "atlasctl", "_ATLASCTL_COMPLETE").source())
