"""The page *Play: merge in your browser*: the drawn world in a reader's browser, and a slider over the sweep of λ.

`quantise` rounds weights to a few bits, `world` holds what goes into the browser, `packing` writes it as one script,
`measure` says what the rounding costs, and `page` makes what a reader sees without JavaScript. What runs in the browser
is ``book/_static/play-engine.js`` (the encoder), ``play.js`` (the page) and ``sweep.js``.
"""
