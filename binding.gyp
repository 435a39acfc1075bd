{
  "targets": [
    {
      "target_name": "openlora",
      "type": "none",
      "actions": [
        {
          "action_name": "cmake",
          "inputs": [],
          "outputs": ["build/release/openlora.node"],
          "action": [
            "sh", "-c",
            "cd '<(module_root_dir)' && if [ -e dist/cli.js ]; then node dist/cli.js build; else node scripts/build-native.mjs; fi"
          ]
        }
      ]
    }
  ]
}
