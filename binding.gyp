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
            "cd '<(module_root_dir)' && cmake -S . -B build/release -DOPENLORA_TESTS=OFF && cmake --build build/release --target openlora_addon --parallel"
          ]
        }
      ]
    }
  ]
}
