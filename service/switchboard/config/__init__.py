"""The policy file: what may stand in it (`schema`), what is wrong (`reading`, `rules`), what it means (`compile`)."""
