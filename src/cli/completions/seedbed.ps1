# Completions of seedbed for PowerShell. In $PROFILE: seedbed completions powershell | Out-String | Invoke-Expression
Register-ArgumentCompleter -Native -CommandName seedbed -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    # What was typed is handed on as text: completing must not run any of it.
    $words = @($commandAst.CommandElements |
        Where-Object { $_.Extent.EndOffset -lt $cursorPosition } |
        ForEach-Object {
            if ($_ -is [System.Management.Automation.Language.StringConstantExpressionAst]) { $_.Value }
            else { $_.Extent.Text }
        })
    & seedbed __complete "--current=$wordToComplete" -- @words 2>$null | ForEach-Object {
        $value, $help = $_ -split "`t", 2
        if (-not $help) { $help = $value }
        [System.Management.Automation.CompletionResult]::new($value, $value, 'ParameterValue', $help)
    }
}
