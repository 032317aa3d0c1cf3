"""The policy file: what may stand in it (`schema`), what is wrong with it (`reading`, `rules`), its meaning (`compile`)."""
