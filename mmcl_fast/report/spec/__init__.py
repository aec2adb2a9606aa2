"""The Vega specification of a report, one file a panel.

Vega's own words are at https://vega.github.io/vega/docs; expressions are strings in its language.
Every panel is a group of one view, so a click in one changes the others without code of ours.
"""
