"""What the subcommands of `adamerging` do, behind the options that `cli` declares."""
