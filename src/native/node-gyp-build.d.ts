declare module 'node-gyp-build' {
  const nodeGypBuild: {
    /** Path of the binary under `dir` that fits this process; throws if there is none. */
    resolve(dir: string): string;
  };
  export default nodeGypBuild;
}
