#![expect(clippy::disallowed_methods, reason = "a snapshot may be read from a file")]

use snapbox::{IntoData as _, assert_data_eq, str};

use super::{Export, SessionCommand, process_compose, systemd, tmux};

fn export() -> Export<'static> {
    let command = |path: &str, words: &[&str]| SessionCommand {
        path: path.to_owned(),
        scoped_name: format!("demo-{}-0123456789abcdef", path.replace('/', "-")),
        directory: format!("/work/it's $HOME #{{x}} {{{{ y }}}}/{path}"),
        environment: vec![
            ("NAME".to_owned(), path.to_owned()),
            ("VALUE".to_owned(), "a 'b' \"c\" $D `e` \\f\n%g #{h} {{ i }}\u{7f}\u{1f600}".to_owned()),
        ],
        words: words.iter().map(|word| (*word).to_owned()).collect(),
    };
    let commands = vec![
        command("lead", &["sh", "-c", "echo \"$VALUE\""]),
        command("lead/coder-0", &["agent", "it's $1", ""]),
    ];
    Export { swarm: "demo", key: "demo-fedcba9876543210", digest: "sha256:abc", commands }
}

#[test]
fn script_for_tmux_quotes_every_value() {
    assert_data_eq!(tmux::script(&export()), str![[r#"
#!/bin/sh
# Commands of the sessions of swarm demo.
#
#     sh FILE            opens a tmux session with a window for each session
#     sh FILE SESSION    runs the command of one session in this terminal
#
# `seedbed export` wrote this file for plan sha256:abc.
# Write it again after `seedbed apply`.
set -eu
unset GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_CONFIG GIT_CONFIG_PARAMETERS GIT_CONFIG_COUNT GIT_OBJECT_DIRECTORY GIT_DIR GIT_WORK_TREE GIT_IMPLICIT_WORK_TREE GIT_GRAFT_FILE GIT_INDEX_FILE GIT_NO_REPLACE_OBJECTS GIT_REPLACE_REF_BASE GIT_PREFIX GIT_SHALLOW_FILE GIT_COMMON_DIR

run() {
    case $1 in
    lead)
        cd '/work/it'\''s $HOME #{x} {{ y }}/lead'
        unset OLDPWD
        exec env \
            NAME=lead \
            VALUE='a '\''b'\'' "c" $D `e` \f
%g #{h} {{ i }}😀' \
            sh -c 'exec "$@"' sh sh -c 'echo "$VALUE"'
        ;;
    lead/coder-0)
        cd '/work/it'\''s $HOME #{x} {{ y }}/lead/coder-0'
        unset OLDPWD
        exec env \
            NAME=lead/coder-0 \
            VALUE='a '\''b'\'' "c" $D `e` \f
%g #{h} {{ i }}😀' \
            sh -c 'exec "$@"' sh agent 'it'\''s $1' ''
        ;;
    *)
        echo "there is no session $1 in this script" >&2
        exit 64
        ;;
    esac
}

if [ $# -gt 0 ]; then
    run "$1"
fi
case $0 in
/*) script=$0 ;;
*) script=$PWD/$0 ;;
esac
if [ ! -f "$script" ]; then
    echo "save this script as a file, and run it with \`sh FILE\`" >&2
    exit 64
fi

name=demo-fedcba9876543210
if tmux has-session -t "=$name" 2>/dev/null; then
    echo "the tmux session $name exists already" >&2
    echo "help: attach to it with \`tmux attach-session -t =$name\`, or end it with \`tmux kill-session -t =$name\`" >&2
    exit 69
fi
# A window stays open when its command has ended, so that its output can be read.
tmux new-session -d -s "$name" -n lead env "PATH=$PATH" sh "$script" lead \; set-option -t "=$name:" destroy-unattached off \; set-option -w -t "=$name:{end}" remain-on-exit on
tmux new-window -d -a -t "=$name:{end}" -n lead/coder-0 env "PATH=$PATH" sh "$script" lead/coder-0 \; set-option -w -t "=$name:{end}" remain-on-exit on
if [ ! -t 0 ] || [ ! -t 1 ]; then
    echo "attach with \`tmux attach-session -t =$name\`"
elif [ -n "${TMUX-}" ]; then
    tmux switch-client -t "=$name"
else
    tmux attach-session -t "=$name"
fi

"#]].raw());
}

#[test]
fn script_for_systemd_quotes_every_value() {
    assert_data_eq!(systemd::script(&export()), str![[r#"
#!/bin/sh
# Commands of the sessions of swarm demo.
#
#     sh FILE            starts a transient unit of systemd for each session
#     sh FILE SESSION    runs the command of one session in this terminal
#
# `seedbed export` wrote this file for plan sha256:abc.
# Write it again after `seedbed apply`.
set -eu
unset GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_CONFIG GIT_CONFIG_PARAMETERS GIT_CONFIG_COUNT GIT_OBJECT_DIRECTORY GIT_DIR GIT_WORK_TREE GIT_IMPLICIT_WORK_TREE GIT_GRAFT_FILE GIT_INDEX_FILE GIT_NO_REPLACE_OBJECTS GIT_REPLACE_REF_BASE GIT_PREFIX GIT_SHALLOW_FILE GIT_COMMON_DIR

run() {
    case $1 in
    lead)
        cd '/work/it'\''s $HOME #{x} {{ y }}/lead'
        unset OLDPWD
        exec env \
            NAME=lead \
            VALUE='a '\''b'\'' "c" $D `e` \f
%g #{h} {{ i }}😀' \
            sh -c 'exec "$@"' sh sh -c 'echo "$VALUE"'
        ;;
    lead/coder-0)
        cd '/work/it'\''s $HOME #{x} {{ y }}/lead/coder-0'
        unset OLDPWD
        exec env \
            NAME=lead/coder-0 \
            VALUE='a '\''b'\'' "c" $D `e` \f
%g #{h} {{ i }}😀' \
            sh -c 'exec "$@"' sh agent 'it'\''s $1' ''
        ;;
    *)
        echo "there is no session $1 in this script" >&2
        exit 64
        ;;
    esac
}

if [ $# -gt 0 ]; then
    run "$1"
fi
case $0 in
/*) script=$0 ;;
*) script=$PWD/$0 ;;
esac
if [ ! -f "$script" ]; then
    echo "save this script as a file, and run it with \`sh FILE\`" >&2
    exit 64
fi

# systemd replaces variables in commands.
script=$(printf %s "$script" | sed 's/\$/$$/g')
failed=0
systemd-run --user --collect --unit=seedbed-demo-lead-0123456789abcdef --description='Session lead of swarm demo' \
    --setenv="PATH=$PATH" -- sh "$script" lead || failed=1
systemd-run --user --collect --unit=seedbed-demo-lead-coder-0-0123456789abcdef --description='Session lead/coder-0 of swarm demo' \
    --setenv="PATH=$PATH" -- sh "$script" lead/coder-0 || failed=1
echo "show the output with \`journalctl --user --follow --unit='seedbed-demo-*'\`"
exit $failed

"#]].raw());
}

#[test]
fn configuration_of_process_compose_quotes_every_value() {
    assert_data_eq!(
        process_compose::configuration(&export()),
        str![[r#"
# Commands of the sessions of swarm demo.
#
#     process-compose -f FILE
#
# `seedbed export` wrote this file for plan sha256:abc.
# Write it again after `seedbed apply`.
version: "0.5"
name: "demo"
processes:
  "lead":
    working_dir: "/work/it's \u0024HOME #{x} {{\"{{\"}} y }}/lead"
    entrypoint: ["sh", "-c", "echo \"\u0024VALUE\""]
    is_dotenv_disabled: true
    environment:
      - "NAME=lead"
      - "VALUE=a 'b' \"c\" \u0024D `e` \\f\n%g #{h} {{\"{{\"}} i }}\u007f\U0001f600"
  "lead:coder-0":
    working_dir: "/work/it's \u0024HOME #{x} {{\"{{\"}} y }}/lead/coder-0"
    entrypoint: ["agent", "it's \u00241", ""]
    is_dotenv_disabled: true
    environment:
      - "NAME=lead/coder-0"
      - "VALUE=a 'b' \"c\" \u0024D `e` \\f\n%g #{h} {{\"{{\"}} i }}\u007f\U0001f600"

"#]]
        .raw()
    );
}
