export declare const TOKENIZERS: string[];
export declare function prepare(folder: string): Promise<void>;
