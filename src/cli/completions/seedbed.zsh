#compdef seedbed
# Completions of seedbed for zsh. In ~/.zshrc, after compinit: source <(seedbed completions zsh)
_seedbed() {
    local line current=${(Q)words[CURRENT]}
    local -a values shown
    for line in "${(@f)$(command seedbed __complete --current="$current" -- "${(@Q)words[1,CURRENT - 1]}" 2>/dev/null)}"; do
        [[ -n $line ]] || continue
        values+=("${line%%$'\t'*}")
        shown+=("${line/$'\t'/  -- }")
    done
    if (( ! ${#values} )); then
        _files
    elif [[ ${values[1]} == *[/=] ]]; then
        compadd -l -S '' -d shown -a values
    else
        compadd -l -d shown -a values
    fi
}
if [[ ${zsh_eval_context[-1]} == loadautofunc ]]; then
    _seedbed "$@"
else
    compdef _seedbed seedbed
fi
