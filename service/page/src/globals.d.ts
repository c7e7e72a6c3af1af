/** Addresses that the build puts in. */
declare const WORKER: string;
declare const SAMPLE: string;
declare const LICENCES: string;
