# Completions of seedbed for bash. In ~/.bashrc: source <(seedbed completions bash)
_seedbed() {
    local at word value joined='' strip='' words=()
    for ((at = 0; at <= COMP_CWORD; at++)); do
        word=${COMP_WORDS[at]//[\\\'\"]/}
        # bash takes `--option=value` apart at the `=`.
        if [[ ${#words[@]} -gt 1 && ${words[${#words[@]} - 1]} == --?* && ($word == = || -n $joined) ]]; then
            words[${#words[@]} - 1]+=$word
            joined=yes
            [[ $word == = ]] && strip=${words[${#words[@]} - 1]}
        else
            words+=("$word")
            joined='' strip=''
        fi
    done
    word=${words[${#words[@]} - 1]}
    unset "words[${#words[@]} - 1]"
    COMPREPLY=()
    while IFS=$'\t' read -r value _; do
        value=${value#"$strip"}
        [[ $value == *[/=] ]] && compopt -o nospace 2>/dev/null
        # Inside quotes, quoting again would be part of the word.
        [[ ${COMP_WORDS[COMP_CWORD]} == [\'\"]* ]] || printf -v value %q "$value"
        COMPREPLY+=("$value")
    done < <(command seedbed __complete --current="$word" -- "${words[@]}" 2>/dev/null)
}
complete -o bashdefault -o default -F _seedbed seedbed
