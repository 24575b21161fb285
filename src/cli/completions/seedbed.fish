# Completions of seedbed for fish. In ~/.config/fish/config.fish: seedbed completions fish | source
function __seedbed_complete
    set --local words (commandline --current-process --tokenize --cut-at-cursor)
    set --local current (commandline --current-token --cut-at-cursor)
    set --local found (command seedbed __complete --current="$current" -- $words 2>/dev/null)
    if set --query found[1]
        printf '%s\n' $found
    else
        __fish_complete_path "$current"
    end
end
complete --command seedbed --no-files --keep-order --arguments '(__seedbed_complete)'
