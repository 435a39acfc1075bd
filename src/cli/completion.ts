// `openlora completion SHELL`: a script that asks `openlora complete` for the word at the cursor, each time anew. So
// the script knows no command and no option itself, and an old one is right for a newer openlora.

import type { Command } from './command.js';
import { defineCommand } from './command.js';
import { candidatesFor } from './complete.js';
import { EXIT_OK } from './errors.js';
import { oneLine } from './text.js';

/** A script as it stands here, but for the backslash that keeps `${` from TypeScript. */
const shell = (text: TemplateStringsArray): string => text.raw.join('').replaceAll('\\${', '${');

// Bash cuts words at = and : (COMP_WORDBREAKS); they are joined again where no space stood between them, and what
// stands before the last of these marks is left out of the replies, since Readline replaces only what follows it.
const BASH = shell`# openlora completion for bash. In ~/.bashrc:
#   eval "$(openlora completion bash)"
_openlora() {
  local words=() count=0 i word rest=\${COMP_LINE#*"\${COMP_WORDS[0]}"}
  for ((i = 1; i <= COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    if [[ $count -gt 0 && $rest != [[:space:]]* ]]; then words[count - 1]+=$word; else words[count++]=$word; fi
    rest=\${rest#*"$word"}
  done
  for ((i = 0; i < count; i++)); do
    words[i]=\${words[i]//[\\\"\']/}
  done
  local cut='' kind='' value
  case \${words[count - 1]} in *[=:]*) cut=\${words[count - 1]%"\${words[count - 1]##*[=:]}"} ;; esac
  COMPREPLY=()
  while IFS=$'\t' read -r value _; do
    if [[ -z $kind ]]; then kind=$value; continue; fi
    if [[ $kind == paths ]]; then value=\${value%/}; fi
    COMPREPLY+=("\${value#"$cut"}")
  done < <("\${COMP_WORDS[0]}" complete "\${words[@]}" 2>/dev/null)
  if [[ $kind == paths ]]; then compopt -o filenames 2>/dev/null; fi
}
complete -F _openlora openlora`;

const ZSH = shell`#compdef openlora
# openlora completion for zsh. In ~/.zshrc, after compinit:
#   eval "$(openlora completion zsh)"
# or as a file _openlora in a folder of $fpath.
_openlora() {
  local -a lines items found notes through
  local line value name note kind
  lines=("\${(@f)$("\${(Q)words[1]}" complete "\${(@Q)words[2,CURRENT-1]}" "\${(Q)PREFIX}" 2>/dev/null)}")
  kind=$lines[1]
  shift lines
  for line in $lines; do
    value=\${line%%$'\t'*} note=
    [[ $line == *$'\t'* ]] && note=\${line#*$'\t'}
    if [[ $kind == words ]]; then
      items+=("\${value//:/\\:}\${note:+:$note}")
      continue
    fi
    name=\${value%/}
    if [[ $name == */* ]]; then name=\${name##*/}; else name=\${name##*=}; fi
    if [[ $value == */ ]]; then through+=("$name"); else found+=("$name") notes+=("$name\${note:+  -- $note}"); fi
  done
  if [[ $kind == words ]]; then
    _describe 'openlora' items
  else
    compset -P '*/' || compset -P '*='
    compadd -l -d notes -a found
    compadd -S / -q -a through
  fi
}
if [[ "\${funcstack[1]}" == _openlora ]]; then _openlora "$@"; else compdef _openlora openlora; fi`;

const FISH = shell`# openlora completion for fish. Once:
#   openlora completion fish > ~/.config/fish/completions/openlora.fish
function __openlora_complete
    set -l words (commandline -opc)
    set -l program $words[1]
    set -l current (string replace -ra '["\'\\\\]' '' -- (commandline -ct))
    set -e words[1]
    $program complete $words "$current" 2>/dev/null | tail -n +2
end
complete -c openlora -f -a '(__openlora_complete)'`;

const SHELLS = { bash: BASH, zsh: ZSH, fish: FISH };

export const completion = defineCommand({
  name: 'completion',
  summary: 'print the completion script of a shell',
  usage: 'bash|zsh|fish',
  details:
    'It completes commands, options, their values, and folders that hold a base or an adapter. `openlora` must be on the PATH: npm install --global openlora.',
  positionals: [{ name: 'SHELL', choices: ['bash', 'zsh', 'fish'] }],
  options: {},
  isTextOnly: true,
  examples: [
    'eval "$(openlora completion bash)"',
    'eval "$(openlora completion zsh)"',
    'openlora completion fish > ~/.config/fish/completions/openlora.fish',
  ],
  // eslint-disable-next-line @typescript-eslint/require-await
  async run({ positionals, io }) {
    io.stdout.line(SHELLS[positionals[0] as keyof typeof SHELLS]);
    return EXIT_OK;
  },
});

/**
 * `openlora complete WORD…` (hidden), for the scripts: `words` or `paths`, then a line for each candidate, the summary
 * after a tab. The words are a command line in the making: no option in them is this command's own.
 */
export const complete: Command = {
  name: 'complete',
  summary: '',
  options: {},
  positionals: [],
  positionalsBeside: () => [],
  help: () => [],
  async run(words, io) {
    const { kind, items } = await candidatesFor(words);
    io.stdout.line(kind);
    for (const { value, summary } of items) io.stdout.line(summary ? `${value}\t${oneLine(summary)}` : value);
    return EXIT_OK;
  },
};
