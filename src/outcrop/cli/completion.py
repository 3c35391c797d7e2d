"""`outcrop completion`: the completion script of a shell."""

import click
from click.shell_completion import get_completion_class

from outcrop.cli.command import Command, Session


@click.command(
    cls=Command,
    examples="""
outcrop completion bash > ~/.local/share/bash-completion/completions/outcrop
outcrop completion zsh > ~/.zfunc/_outcrop
outcrop completion fish > ~/.config/fish/completions/outcrop.fish
""",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete commands, options and file names."""
    root = context.find_root()
    completion = get_completion_class(shell)
    if completion is None:
        raise click.BadParameter(f"no completion for {shell}")
    script = completion(root.command, {}, "outcrop", "_OUTCROP_COMPLETE").source()
    session = context.ensure_object(Session)
    session.output.result({"shell": shell, "script": script}, script)
