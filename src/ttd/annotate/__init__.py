"""Making a TagMask set by hand (paper, appendix C): which words of a caption are true, and where they are.

`queue` lists what is to be annotated, `proposals` suggests words and masks, `item` holds what one person does to one
image, `store` keeps the decisions, `export` writes the layout that `ttd eval tagmask` reads, `annotation_set` joins
them; `agreement` compares two people. Nothing here depends on the web page, which is in `ttd.app.annotate`.
"""
