export declare const root: string;
export declare function filesUnder(folder: string, pattern: RegExp): string[];
