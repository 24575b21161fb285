# Short names for the commands of CONTRIBUTING.md.

# Lists the recipes
default:
    @just --list

# Checks everything that CI checks
check:
    .ci/check

# Runs the fast tests, or those whose names contain a word
test *words:
    cargo test {{ words }}

# Runs every case of the sweeps, the soak and the random sequences: an hour
soak:
    cargo test --test integration every_case -- --ignored
    cargo test --test integration faults::soak -- --ignored
    cargo test --test integration faults::sequences -- --ignored

# Accepts changed snapshots, generated pages and schemas; read the difference
bless:
    SNAPSHOTS=overwrite cargo test --test integration -- manifest::reports:: plan::review:: documents::generated
    for schema in schemas/*.schema.json; do \
        cargo run --quiet -- schema "$(basename "$schema" .schema.json)" > "$schema.new" && mv "$schema.new" "$schema"; \
    done
    git diff --stat
