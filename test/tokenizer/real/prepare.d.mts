export declare const TOKENIZERS: string[];
export declare function prepare(folder: string): Promise<void>;
export declare function realTemplates(): { name: string; template: string }[];
