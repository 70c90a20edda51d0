# bash completion for gpunode. Written from its commands by "npm run schema".

# Asks the daemon, through the gpunode that is being typed: ids of workloads, or indexes of GPUs.
_gpunode_words() {
  local words
  words=$("${COMP_WORDS[0]}" __complete "$1" ${config:+--config "$config"} 2>/dev/null | cut -f1)
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}

_gpunode_files() {
  compopt -o filenames 2>/dev/null
  mapfile -t COMPREPLY < <(compgen "$1" -- "$cur")
}

_gpunode_choice() {
  mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur")
}

_gpunode() {
  local cur=${COMP_WORDS[COMP_CWORD]} path=gpunode option='' config='' rest='' word
  local -i at=1 count=0
  COMPREPLY=()
  # "--config=" comes as two words, and what stands behind it as a third.
  [[ $cur == = ]] && cur=''
  while ((at < COMP_CWORD)); do
    word=${COMP_WORDS[at]}
    if [[ $word == = ]]; then
      :
    elif [[ -n $option && $word != -* ]]; then
      [[ $option == --config ]] && config=$word
      case "$path $option" in
        'gpunode reclaim --gpu' |\
        'gpunode resume --gpu') ;;
        *) option='' ;;
      esac
    elif [[ -n $rest ]]; then
      count+=1
    elif [[ $word == -- ]]; then
      rest=1
    elif [[ $word == -* ]]; then
      option=''
      case "$path $word" in
        'gpunode run --config' |\
        'gpunode run --name' |\
        'gpunode run --state-dir' |\
        'gpunode run --run-dir' |\
        'gpunode run --coordinator' |\
        'gpunode run --join-token-file' |\
        'gpunode run --nvidia-smi' |\
        'gpunode run --docker-socket' |\
        'gpunode run --log-level' |\
        'gpunode run --log-format' |\
        'gpunode status --config' |\
        'gpunode gpus --config' |\
        'gpunode workloads --config' |\
        'gpunode logs --config' |\
        'gpunode logs -n' |\
        'gpunode logs --tail' |\
        'gpunode reclaim --config' |\
        'gpunode reclaim --gpu' |\
        'gpunode reclaim --for' |\
        'gpunode reclaim --grace-seconds' |\
        'gpunode drain --config' |\
        'gpunode drain --grace-seconds' |\
        'gpunode resume --config' |\
        'gpunode resume --gpu' |\
        'gpunode usage --config' |\
        'gpunode usage --since' |\
        'gpunode pause-sampling --config' |\
        'gpunode resume-sampling --config' |\
        'gpunode enroll --config' |\
        'gpunode enroll --coordinator' |\
        'gpunode enroll --token-file' |\
        'gpunode enroll --name' |\
        'gpunode enroll --ca-file' |\
        'gpunode enroll --proxy' |\
        'gpunode enroll --wait-seconds' |\
        'gpunode doctor --config' |\
        'gpunode config check --config' |\
        'gpunode config show --config' |\
        'gpunode service install --prefix' |\
        'gpunode service uninstall --prefix' |\
        'gpunode support-bundle --config' |\
        'gpunode support-bundle --output' |\
        'gpunode coordinator serve --listen' |\
        'gpunode coordinator serve --state' |\
        'gpunode coordinator serve --tls-cert' |\
        'gpunode coordinator serve --tls-key' |\
        'gpunode coordinator serve --join-token' |\
        'gpunode coordinator serve --join-token-file' |\
        'gpunode coordinator serve --join-token-uses' |\
        'gpunode coordinator serve --api-token-file' |\
        'gpunode coordinator serve --public-host' |\
        'gpunode coordinator serve --heartbeat-seconds' |\
        'gpunode coordinator serve --lease-seconds' |\
        'gpunode coordinator serve --telemetry-interval-ms' |\
        'gpunode coordinator submit --coordinator' |\
        'gpunode coordinator submit --api-token-file' |\
        'gpunode coordinator submit --file' |\
        'gpunode coordinator submit --id' |\
        'gpunode coordinator submit --gpus' |\
        'gpunode coordinator submit --min-vram' |\
        'gpunode coordinator submit --precision' |\
        'gpunode coordinator submit --min-compute-capability' |\
        'gpunode coordinator submit --env' |\
        'gpunode coordinator submit --secret-env' |\
        'gpunode coordinator submit --port' |\
        'gpunode coordinator submit --memory' |\
        'gpunode coordinator submit --cpus' |\
        'gpunode coordinator submit --priority' |\
        'gpunode coordinator usage --coordinator' |\
        'gpunode coordinator usage --api-token-file' |\
        'gpunode coordinator usage --since' |\
        'gpunode coordinator token create --coordinator' |\
        'gpunode coordinator token create --api-token-file' |\
        'gpunode coordinator token create --uses' |\
        'gpunode coordinator token create --expires' |\
        'gpunode coordinator nodes --coordinator' |\
        'gpunode coordinator nodes --api-token-file' |\
        'gpunode coordinator workloads --coordinator' |\
        'gpunode coordinator workloads --api-token-file' |\
        'gpunode coordinator logs --coordinator' |\
        'gpunode coordinator logs --api-token-file' |\
        'gpunode coordinator logs -n' |\
        'gpunode coordinator logs --tail' |\
        'gpunode coordinator release --coordinator' |\
        'gpunode coordinator release --api-token-file' |\
        'gpunode coordinator release --grace-seconds' |\
        'gpunode coordinator preempt --coordinator' |\
        'gpunode coordinator preempt --api-token-file' |\
        'gpunode coordinator preempt --grace-seconds' |\
        'gpunode coordinator preempt --reason' |\
        'gpunode coordinator drain --coordinator' |\
        'gpunode coordinator drain --api-token-file' |\
        'gpunode coordinator drain --grace-seconds' |\
        'gpunode coordinator resume --coordinator' |\
        'gpunode coordinator resume --api-token-file' |\
        'gpunode coordinator bar --coordinator' |\
        'gpunode coordinator bar --api-token-file' |\
        'gpunode coordinator bar --reason' |\
        'gpunode coordinator unbar --coordinator' |\
        'gpunode coordinator unbar --api-token-file') option=$word ;;
      esac
    else
      case "$path $word" in
        'gpunode run' |\
        'gpunode status' |\
        'gpunode gpus' |\
        'gpunode workloads' |\
        'gpunode logs' |\
        'gpunode reclaim' |\
        'gpunode drain' |\
        'gpunode resume' |\
        'gpunode usage' |\
        'gpunode pause-sampling' |\
        'gpunode resume-sampling' |\
        'gpunode enroll' |\
        'gpunode doctor' |\
        'gpunode config' |\
        'gpunode config check' |\
        'gpunode config show' |\
        'gpunode config help' |\
        'gpunode service' |\
        'gpunode service install' |\
        'gpunode service uninstall' |\
        'gpunode service help' |\
        'gpunode support-bundle' |\
        'gpunode coordinator' |\
        'gpunode coordinator serve' |\
        'gpunode coordinator submit' |\
        'gpunode coordinator usage' |\
        'gpunode coordinator token' |\
        'gpunode coordinator token create' |\
        'gpunode coordinator token help' |\
        'gpunode coordinator nodes' |\
        'gpunode coordinator workloads' |\
        'gpunode coordinator logs' |\
        'gpunode coordinator release' |\
        'gpunode coordinator preempt' |\
        'gpunode coordinator drain' |\
        'gpunode coordinator resume' |\
        'gpunode coordinator bar' |\
        'gpunode coordinator unbar' |\
        'gpunode coordinator help' |\
        'gpunode demo' |\
        'gpunode completion' |\
        'gpunode help') path="$path $word" ;;
        *) count+=1 ;;
      esac
    fi
    at+=1
  done

  if [[ -n $option && $cur != -* ]]; then
    case "$path $option" in
      'gpunode run --config') _gpunode_files -f ;;
      'gpunode run --state-dir') _gpunode_files -d ;;
      'gpunode run --run-dir') _gpunode_files -d ;;
      'gpunode run --join-token-file') _gpunode_files -f ;;
      'gpunode run --nvidia-smi') _gpunode_files -f ;;
      'gpunode run --docker-socket') _gpunode_files -f ;;
      'gpunode run --log-level') _gpunode_choice 'trace debug info warn error fatal silent' ;;
      'gpunode run --log-format') _gpunode_choice 'auto text json' ;;
      'gpunode status --config') _gpunode_files -f ;;
      'gpunode gpus --config') _gpunode_files -f ;;
      'gpunode workloads --config') _gpunode_files -f ;;
      'gpunode logs --config') _gpunode_files -f ;;
      'gpunode reclaim --config') _gpunode_files -f ;;
      'gpunode reclaim --gpu') _gpunode_words gpu ;;
      'gpunode drain --config') _gpunode_files -f ;;
      'gpunode resume --config') _gpunode_files -f ;;
      'gpunode resume --gpu') _gpunode_words gpu ;;
      'gpunode usage --config') _gpunode_files -f ;;
      'gpunode pause-sampling --config') _gpunode_files -f ;;
      'gpunode resume-sampling --config') _gpunode_files -f ;;
      'gpunode enroll --config') _gpunode_files -f ;;
      'gpunode enroll --token-file') _gpunode_files -f ;;
      'gpunode enroll --ca-file') _gpunode_files -f ;;
      'gpunode doctor --config') _gpunode_files -f ;;
      'gpunode config check --config') _gpunode_files -f ;;
      'gpunode config show --config') _gpunode_files -f ;;
      'gpunode service install --prefix') _gpunode_files -d ;;
      'gpunode service uninstall --prefix') _gpunode_files -d ;;
      'gpunode support-bundle --config') _gpunode_files -f ;;
      'gpunode support-bundle --output') _gpunode_files -f ;;
      'gpunode coordinator serve --state') _gpunode_files -d ;;
      'gpunode coordinator serve --tls-cert') _gpunode_files -f ;;
      'gpunode coordinator serve --tls-key') _gpunode_files -f ;;
      'gpunode coordinator serve --join-token-file') _gpunode_files -f ;;
      'gpunode coordinator serve --api-token-file') _gpunode_files -f ;;
      'gpunode coordinator submit --api-token-file') _gpunode_files -f ;;
      'gpunode coordinator submit --file') _gpunode_files -f ;;
      'gpunode coordinator usage --api-token-file') _gpunode_files -f ;;
      'gpunode coordinator token create --api-token-file') _gpunode_files -f ;;
      'gpunode coordinator nodes --api-token-file') _gpunode_files -f ;;
      'gpunode coordinator workloads --api-token-file') _gpunode_files -f ;;
      'gpunode coordinator logs --api-token-file') _gpunode_files -f ;;
      'gpunode coordinator release --api-token-file') _gpunode_files -f ;;
      'gpunode coordinator preempt --api-token-file') _gpunode_files -f ;;
      'gpunode coordinator drain --api-token-file') _gpunode_files -f ;;
      'gpunode coordinator resume --api-token-file') _gpunode_files -f ;;
      'gpunode coordinator bar --api-token-file') _gpunode_files -f ;;
      'gpunode coordinator unbar --api-token-file') _gpunode_files -f ;;
    esac
    return
  fi
  if [[ $cur == -* && -z $rest ]]; then
    case "$path" in
      'gpunode') _gpunode_choice '-V --version -h --help' ;;
      'gpunode run') _gpunode_choice '--config --name --state-dir --run-dir --coordinator --join-token-file --insecure --nvidia-smi --docker-socket --log-level --log-format -h --help' ;;
      'gpunode status') _gpunode_choice '--config --json --watch -h --help' ;;
      'gpunode gpus') _gpunode_choice '--config --json -h --help' ;;
      'gpunode workloads') _gpunode_choice '--config --json -h --help' ;;
      'gpunode logs') _gpunode_choice '--config -f --follow -n --tail -h --help' ;;
      'gpunode reclaim') _gpunode_choice '--config --json --gpu --for --grace-seconds --no-wait -h --help' ;;
      'gpunode drain') _gpunode_choice '--config --json --grace-seconds --maintenance -h --help' ;;
      'gpunode resume') _gpunode_choice '--config --json --gpu -h --help' ;;
      'gpunode usage') _gpunode_choice '--config --json --since -h --help' ;;
      'gpunode pause-sampling') _gpunode_choice '--config --json -h --help' ;;
      'gpunode resume-sampling') _gpunode_choice '--config --json -h --help' ;;
      'gpunode enroll') _gpunode_choice '--config --json --coordinator --token-file --token-stdin --without-token --name --ca-file --proxy --insecure --no-check --wait-seconds --yes --dry-run --rotate -h --help' ;;
      'gpunode doctor') _gpunode_choice '--config --json --fix --verbose --no-containers -h --help' ;;
      'gpunode config') _gpunode_choice '-h --help' ;;
      'gpunode config check') _gpunode_choice '--config -h --help' ;;
      'gpunode config show') _gpunode_choice '--config --json -h --help' ;;
      'gpunode config help') _gpunode_choice '' ;;
      'gpunode service') _gpunode_choice '-h --help' ;;
      'gpunode service install') _gpunode_choice '--dry-run --prefix -h --help' ;;
      'gpunode service uninstall') _gpunode_choice '--dry-run --prefix --purge -h --help' ;;
      'gpunode service help') _gpunode_choice '' ;;
      'gpunode support-bundle') _gpunode_choice '--config --output -h --help' ;;
      'gpunode coordinator') _gpunode_choice '-h --help' ;;
      'gpunode coordinator serve') _gpunode_choice '--listen --state --tls-cert --tls-key --join-token --join-token-file --join-token-uses --open --api-token-file --public-host --heartbeat-seconds --lease-seconds --telemetry-interval-ms -h --help' ;;
      'gpunode coordinator submit') _gpunode_choice '--coordinator --api-token-file --json --file --id --gpus --min-vram --precision --min-compute-capability --env --secret-env --port --memory --cpus --priority --requeue --wait -h --help' ;;
      'gpunode coordinator usage') _gpunode_choice '--coordinator --api-token-file --json --since -h --help' ;;
      'gpunode coordinator token') _gpunode_choice '-h --help' ;;
      'gpunode coordinator token create') _gpunode_choice '--coordinator --api-token-file --json --uses --expires -h --help' ;;
      'gpunode coordinator token help') _gpunode_choice '' ;;
      'gpunode coordinator nodes') _gpunode_choice '--coordinator --api-token-file --json -h --help' ;;
      'gpunode coordinator workloads') _gpunode_choice '--coordinator --api-token-file --json -h --help' ;;
      'gpunode coordinator logs') _gpunode_choice '--coordinator --api-token-file --json -f --follow -n --tail -h --help' ;;
      'gpunode coordinator release') _gpunode_choice '--coordinator --api-token-file --json --grace-seconds -h --help' ;;
      'gpunode coordinator preempt') _gpunode_choice '--coordinator --api-token-file --json --grace-seconds --reason -h --help' ;;
      'gpunode coordinator drain') _gpunode_choice '--coordinator --api-token-file --json --grace-seconds -h --help' ;;
      'gpunode coordinator resume') _gpunode_choice '--coordinator --api-token-file --json -h --help' ;;
      'gpunode coordinator bar') _gpunode_choice '--coordinator --api-token-file --json --reason -h --help' ;;
      'gpunode coordinator unbar') _gpunode_choice '--coordinator --api-token-file --json -h --help' ;;
      'gpunode coordinator help') _gpunode_choice '' ;;
      'gpunode demo') _gpunode_choice '-h --help' ;;
      'gpunode completion') _gpunode_choice '-h --help' ;;
      'gpunode help') _gpunode_choice '' ;;
    esac
    return
  fi
  case "$path $count" in
    'gpunode 0') _gpunode_choice 'run status gpus workloads logs reclaim drain resume usage pause-sampling resume-sampling enroll doctor config service support-bundle coordinator demo completion help' ;;
    'gpunode logs '0) _gpunode_words workload ;;
    'gpunode config 0') _gpunode_choice 'check show help' ;;
    'gpunode service 0') _gpunode_choice 'install uninstall help' ;;
    'gpunode coordinator 0') _gpunode_choice 'serve submit usage token nodes workloads logs release preempt drain resume bar unbar help' ;;
    'gpunode coordinator token 0') _gpunode_choice 'create help' ;;
    'gpunode completion '0) _gpunode_choice 'bash zsh fish' ;;
  esac
}

complete -F _gpunode gpunode
