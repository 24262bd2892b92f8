"""From executed notebooks to pages: rerun, build, roles and directives."""
