"""Making a TagMask set by hand (paper, appendix C): which words of a caption are true, and where they are.

`queue` says what is to be annotated, `proposals` what is suggested, `item` what one person does to one image,
`store` keeps what was decided, `export` writes the layout that `ttd eval tagmask` reads, `annotation_set` joins them;
`agreement` compares two people. Nothing here knows of a web page.
"""
