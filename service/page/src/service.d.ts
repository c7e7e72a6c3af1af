// Made by `make page-types` of the OpenAPI document 86ea233ab29d2463ae576dd282fc298f93a111512a446b0a3ed5050087c5f821
export interface paths {
    "/reconstruct": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post: operations["reconstruct_reconstruct_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/array": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post: operations["convert_array_array_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/models": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get: operations["list_models_models_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/models/{name}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get: operations["get_model_models__name__get"];
        put?: never;
        post?: never;
        delete: operations["forget_model_models__name__delete"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/models/{name}/activate": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post: operations["activate_model_models__name__activate_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/models/{name}/window": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get: operations["get_window_models__name__window_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/noise": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post: operations["get_noise_noise_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/jobs": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get: operations["list_jobs_jobs_get"];
        put?: never;
        post: operations["submit_jobs_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/jobs/{id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get: operations["get_job_jobs__id__get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/jobs/{id}/logs": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get: operations["get_log_jobs__id__logs_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/jobs/{id}/events": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get: operations["get_events_jobs__id__events_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/jobs/{id}/stop": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post: operations["stop_job_jobs__id__stop_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/jobs/{id}/activate": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post: operations["activate_job_jobs__id__activate_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/recipes": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get: operations["list_recipes_recipes_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/runs": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get: operations["list_runs_runs_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/report": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get: operations["get_report_report_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/jobs/{id}/newest": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get: operations["get_newest_jobs__id__newest_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/health/live": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get: operations["live_health_live_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/health/ready": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get: operations["ready_health_ready_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/metrics": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get: operations["metrics_metrics_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/access": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get: operations["get_access_access_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
}
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        AccessDocument: {
            /** @enum {string} */
            role: "reconstruct" | "operate";
            tokens: boolean;
            version: string;
            body_bytes: number;
            stack: number;
            window: string;
            cutoff: number;
        };
        Activation: {
            source: string;
        };
        Best: {
            psnr?: components["schemas"]["Figure"] | null;
            ssim?: components["schemas"]["Figure"] | null;
            trial?: string | null;
            parameters?: {
                [key: string]: unknown;
            } | null;
        };
        DataConfig: {
            dir?: string | null;
            /** @default 1 */
            every: number;
            first_angles?: number | null;
            train_samples?: number | null;
            validation_samples?: number | null;
            /**
             * @default none
             * @enum {string}
             */
            cache: "none" | "memory" | "half";
            photons?: [
                number,
                number
            ] | null;
            /**
             * @default none
             * @enum {string}
             */
            augment: "none" | "flips" | "all";
        };
        EvaluateConfig: {
            checkpoint: string;
            /** @default {} */
            data: components["schemas"]["EvaluateData"];
            /**
             * @default test
             * @enum {string}
             */
            split: "train" | "validation" | "test";
            protocol?: "lodopab" | null;
            submission?: string | null;
            out?: string | null;
            /** @default false */
            overwrite: boolean;
            /**
             * @default {
             *       "own": [],
             *       "options": {}
             *     }
             */
            metrics: components["schemas"]["MetricsConfig"];
            /** @default 4 */
            panels: number;
            hann_psnr?: number | null;
            hann_ssim?: number | null;
        };
        EvaluateData: {
            dir?: string | null;
            every?: number | null;
            first_angles?: number | null;
            photons?: [
                number,
                number
            ] | null;
            samples?: number | null;
        };
        EvaluateJob: {
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            kind: "evaluate";
            config: components["schemas"]["EvaluateConfig"];
        };
        Figure: {
            value: number | null;
            epoch?: number | null;
            over_fbp?: number | null;
        };
        GeometryDocument: {
            digest: string;
            sinogram_shape: [
                number,
                number
            ];
            image_shape: [
                number,
                number
            ];
            cell_size_m: number;
            pixel_size_m: number;
            first_angle_rad: number;
            last_angle_rad: number;
            axis_offset_m: number;
            source_to_axis_m?: number | null;
            source_to_detector_m?: number | null;
        };
        Health: {
            /** @enum {string} */
            status: "live" | "ready";
            /** @default 0.1.0 */
            version: string;
        };
        InitConfig: {
            checkpoint?: string | null;
            /** @default false */
            optimizer: boolean;
        };
        JobActivation: {
            /** @default best */
            name: string;
        };
        JobDocument: {
            id: string;
            /** @enum {string} */
            kind: "train" | "sweep" | "evaluate" | "reconstruct";
            /** @enum {string} */
            status: "pending" | "running" | "succeeded" | "failed" | "stopped" | "lost";
            reason: string;
            /** Format: date-time */
            created: string;
            started: string | null;
            ended: string | null;
            place: string;
            request: {
                [key: string]: unknown;
            };
            progress: components["schemas"]["Progress"];
        };
        JobList: {
            jobs: components["schemas"]["JobSummary"][];
        };
        JobSummary: {
            id: string;
            /** @enum {string} */
            kind: "train" | "sweep" | "evaluate" | "reconstruct";
            /** @enum {string} */
            status: "pending" | "running" | "succeeded" | "failed" | "stopped" | "lost";
            reason: string;
            /** Format: date-time */
            created: string;
            started: string | null;
            ended: string | null;
            place: string;
        };
        LoopConfig: {
            /** @default 10 */
            epochs: number;
            /** @default 8 */
            batch_size: number;
            /** @default loss */
            monitor: string;
            /** @default 15 */
            patience: number;
            ema?: number | null;
            /**
             * @default float32
             * @enum {string}
             */
            precision: "float32" | "bfloat16";
            /** @default false */
            checkpointing: boolean;
            /** @default 0 */
            seed: number;
        };
        LossConfig: {
            /** @default 0.25 */
            l1: number;
            /** @default 1 */
            ms_ssim: number;
            /** @default 1 */
            edge: number;
            /** @default 0 */
            mse: number;
            /** @default 0 */
            log_mse: number;
            /** @default 0 */
            local_ssim: number;
            /** @default {} */
            own: {
                [key: string]: number;
            };
            /** @default {} */
            options: {
                [key: string]: {
                    [key: string]: unknown;
                };
            };
        };
        MetricsConfig: {
            /** @default [] */
            own: string[];
            /** @default {} */
            options: {
                [key: string]: {
                    [key: string]: unknown;
                };
            };
        };
        ModelDocument: {
            name: string;
            version: string;
            source: string;
            automatic: boolean;
            /** Format: date-time */
            activated: string;
            /** Format: date-time */
            created: string;
            epoch: number;
            metrics: {
                [key: string]: number;
            };
            phantom_error: number;
            training_data: {
                [key: string]: unknown;
            };
            window: string;
            sha256: string;
            geometry: components["schemas"]["GeometryDocument"];
            unit: string;
            value_scale: number | null;
            device: string;
        };
        ModelList: {
            models: components["schemas"]["ModelDocument"][];
            /** @default {} */
            absent: {
                [key: string]: string;
            };
            without_model: string;
        };
        OptimConfig: {
            /**
             * @default adam
             * @enum {string}
             */
            kind: "adam" | "adamw";
            /** @default 0.001 */
            lr: number;
            network_lr?: number | null;
            weight_decay?: number | null;
            clip?: number | null;
            /**
             * @default plateau
             * @enum {string}
             */
            schedule: "plateau" | "cosine" | "one_cycle";
            /** @default 0.1 */
            warm_up: number;
            /** @default 0.5 */
            plateau_factor: number;
            /** @default 1 */
            plateau_patience: number;
        };
        PostprocessingConfig: {
            /** @default identity */
            kind: string;
            /** @default {} */
            options: {
                [key: string]: unknown;
            };
            /** @default true */
            residual: boolean;
            /** @default 16 */
            channels: number;
            /**
             * @default [
             *       1,
             *       2,
             *       1
             *     ]
             */
            dilations: number[];
        };
        Progress: {
            /** @enum {string} */
            unit: "epoch" | "trial" | "evaluation" | "slab" | "volume";
            /** @default 0 */
            done: number;
            total?: number | null;
            /** @default [] */
            rows: {
                [key: string]: unknown;
            }[];
            /** @default {} */
            best: components["schemas"]["Best"];
            /** @default false */
            model: boolean;
            /** @default false */
            picture: boolean;
            /** @default [] */
            reports: string[];
            /** @default  */
            problem: string;
        };
        RayConfig: {
            address?: string | null;
        };
        RecipeDocument: {
            name: string;
            settings: {
                [key: string]: unknown;
            };
        };
        RecipeList: {
            recipes: components["schemas"]["RecipeDocument"][];
            searched: {
                [key: string]: string[];
            };
        };
        ReconstructConfig: {
            checkpoint?: string | null;
            window?: ("none" | "shepp-logan" | "cosine" | "hamming" | "hann") | null;
            cutoff?: number | null;
            data: components["schemas"]["VolumeData"];
            part?: ("train" | "validation" | "test") | null;
            rows?: string | null;
            /** Format: path */
            out: string;
            slab?: number | null;
            photons?: number | "estimate" | null;
            /** @default {} */
            ray: components["schemas"]["VolumeRay"];
        };
        ReconstructJob: {
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            kind: "reconstruct";
            config: components["schemas"]["ReconstructConfig"];
        };
        RunConfig: {
            name?: string | null;
            /** @default runs */
            storage: string;
            /** @default 3 */
            max_failures: number;
            extend?: number | null;
        };
        RunDocument: {
            name: string;
            place: string;
            state: string;
            reason: string;
            epochs_done: number;
            epochs: number | null;
            psnr: components["schemas"]["Figure"] | null;
            ssim: components["schemas"]["Figure"] | null;
            changed: string | null;
            model: boolean;
            reports: string[];
        };
        RunList: {
            runs: components["schemas"]["RunDocument"][];
            /** @default  */
            problem: string;
        };
        ScalingConfig: {
            num_workers?: number | null;
            min_workers?: number | null;
            cpus_per_worker?: number | null;
            interface?: string | null;
        };
        StartWindowConfig: {
            /** @default frequency */
            kind: string;
            /** @default {} */
            options: {
                [key: string]: unknown;
            };
            /**
             * @default ones
             * @enum {string}
             */
            init: "ones" | "none" | "shepp-logan" | "cosine" | "hamming" | "hann" | "solve";
            cutoff?: number | "best" | null;
            /** @default 24 */
            knots: number;
            /** @default 3 */
            rank: number;
            /** @default data */
            photons: number | ("data" | "estimate");
            /** @default data */
            unit: number | "data";
            /** @default false */
            frozen: boolean;
        };
        SweepConfig: {
            /** @default 16 */
            trials: number;
            /**
             * @default optuna
             * @enum {string}
             */
            search: "optuna" | "random" | "grid";
            /**
             * @default asha
             * @enum {string}
             */
            scheduler: "asha" | "none";
            min_epochs?: number | null;
            /**
             * @default combined
             * @enum {string}
             */
            metric: "combined" | "psnr" | "ssim";
            name?: string | null;
            /** @default runs */
            storage: string;
            max_concurrent?: number | null;
            /** @default 1 */
            workers_per_trial: number;
            /** @default 0.5 */
            gpu_fraction: number;
            /** @default false */
            train_best: boolean;
        };
        SweepJob: {
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            kind: "sweep";
            /** @enum {string} */
            space: "loss_weights" | "learning_rate";
            /**
             * @default {
             *       "recipe": "quickstart",
             *       "target": "truth",
             *       "split": "angles",
             *       "data": {
             *         "augment": "none",
             *         "cache": "none",
             *         "every": 1
             *       },
             *       "window": {
             *         "frozen": false,
             *         "init": "ones",
             *         "kind": "frequency",
             *         "knots": 24,
             *         "options": {},
             *         "photons": "data",
             *         "rank": 3,
             *         "unit": "data"
             *       },
             *       "postprocessing": {
             *         "channels": 16,
             *         "dilations": [
             *           1,
             *           2,
             *           1
             *         ],
             *         "kind": "identity",
             *         "options": {},
             *         "residual": true
             *       },
             *       "loss": {
             *         "edge": 1,
             *         "l1": 0.25,
             *         "local_ssim": 0,
             *         "log_mse": 0,
             *         "ms_ssim": 1,
             *         "mse": 0,
             *         "options": {},
             *         "own": {}
             *       },
             *       "metrics": {
             *         "options": {},
             *         "own": []
             *       },
             *       "optim": {
             *         "kind": "adam",
             *         "lr": 0.001,
             *         "plateau_factor": 0.5,
             *         "plateau_patience": 1,
             *         "schedule": "plateau",
             *         "warm_up": 0.1
             *       },
             *       "train": {
             *         "batch_size": 8,
             *         "checkpointing": false,
             *         "epochs": 10,
             *         "monitor": "loss",
             *         "patience": 15,
             *         "precision": "float32",
             *         "seed": 0
             *       },
             *       "scaling": {},
             *       "ray": {},
             *       "init": {
             *         "optimizer": false
             *       },
             *       "run": {
             *         "max_failures": 3,
             *         "storage": "runs"
             *       },
             *       "track": {
             *         "every": 1,
             *         "images": 2,
             *         "to": []
             *       },
             *       "sweep": {
             *         "gpu_fraction": 0.5,
             *         "metric": "combined",
             *         "scheduler": "asha",
             *         "search": "optuna",
             *         "storage": "runs",
             *         "train_best": false,
             *         "trials": 16,
             *         "workers_per_trial": 1
             *       }
             *     }
             */
            config: components["schemas"]["SweepTree"];
        };
        SweepTree: {
            /** @default quickstart */
            recipe: string;
            /**
             * @default truth
             * @enum {string}
             */
            target: "truth" | "self";
            /**
             * @default angles
             * @enum {string}
             */
            split: "angles" | "photons";
            /**
             * @default {
             *       "every": 1,
             *       "cache": "none",
             *       "augment": "none"
             *     }
             */
            data: components["schemas"]["DataConfig"];
            /**
             * @default {
             *       "kind": "frequency",
             *       "options": {},
             *       "init": "ones",
             *       "knots": 24,
             *       "rank": 3,
             *       "photons": "data",
             *       "unit": "data",
             *       "frozen": false
             *     }
             */
            window: components["schemas"]["StartWindowConfig"];
            /**
             * @default {
             *       "kind": "identity",
             *       "options": {},
             *       "residual": true,
             *       "channels": 16,
             *       "dilations": [
             *         1,
             *         2,
             *         1
             *       ]
             *     }
             */
            postprocessing: components["schemas"]["PostprocessingConfig"];
            /**
             * @default {
             *       "l1": 0.25,
             *       "ms_ssim": 1,
             *       "edge": 1,
             *       "mse": 0,
             *       "log_mse": 0,
             *       "local_ssim": 0,
             *       "own": {},
             *       "options": {}
             *     }
             */
            loss: components["schemas"]["LossConfig"];
            /**
             * @default {
             *       "own": [],
             *       "options": {}
             *     }
             */
            metrics: components["schemas"]["MetricsConfig"];
            /**
             * @default {
             *       "kind": "adam",
             *       "lr": 0.001,
             *       "schedule": "plateau",
             *       "warm_up": 0.1,
             *       "plateau_factor": 0.5,
             *       "plateau_patience": 1
             *     }
             */
            optim: components["schemas"]["OptimConfig"];
            /**
             * @default {
             *       "epochs": 10,
             *       "batch_size": 8,
             *       "monitor": "loss",
             *       "patience": 15,
             *       "precision": "float32",
             *       "checkpointing": false,
             *       "seed": 0
             *     }
             */
            train: components["schemas"]["LoopConfig"];
            /** @default {} */
            scaling: components["schemas"]["ScalingConfig"];
            /** @default {} */
            ray: components["schemas"]["RayConfig"];
            /**
             * @default {
             *       "optimizer": false
             *     }
             */
            init: components["schemas"]["InitConfig"];
            /**
             * @default {
             *       "storage": "runs",
             *       "max_failures": 3
             *     }
             */
            run: components["schemas"]["RunConfig"];
            /**
             * @default {
             *       "to": [],
             *       "images": 2,
             *       "every": 1
             *     }
             */
            track: components["schemas"]["TrackConfig"];
            /**
             * @default {
             *       "trials": 16,
             *       "search": "optuna",
             *       "scheduler": "asha",
             *       "metric": "combined",
             *       "storage": "runs",
             *       "workers_per_trial": 1,
             *       "gpu_fraction": 0.5,
             *       "train_best": false
             *     }
             */
            sweep: components["schemas"]["SweepConfig"];
        };
        TrackConfig: {
            /**
             * @default [
             *       "tensorboard"
             *     ]
             */
            to: ("tensorboard" | "mlflow" | "wandb")[];
            /** @default 2 */
            images: number;
            /** @default 1 */
            every: number;
        };
        TrainConfig: {
            /** @default quickstart */
            recipe: string;
            /**
             * @default truth
             * @enum {string}
             */
            target: "truth" | "self";
            /**
             * @default angles
             * @enum {string}
             */
            split: "angles" | "photons";
            /**
             * @default {
             *       "every": 1,
             *       "cache": "none",
             *       "augment": "none"
             *     }
             */
            data: components["schemas"]["DataConfig"];
            /**
             * @default {
             *       "kind": "frequency",
             *       "options": {},
             *       "init": "ones",
             *       "knots": 24,
             *       "rank": 3,
             *       "photons": "data",
             *       "unit": "data",
             *       "frozen": false
             *     }
             */
            window: components["schemas"]["StartWindowConfig"];
            /**
             * @default {
             *       "kind": "identity",
             *       "options": {},
             *       "residual": true,
             *       "channels": 16,
             *       "dilations": [
             *         1,
             *         2,
             *         1
             *       ]
             *     }
             */
            postprocessing: components["schemas"]["PostprocessingConfig"];
            /**
             * @default {
             *       "l1": 0.25,
             *       "ms_ssim": 1,
             *       "edge": 1,
             *       "mse": 0,
             *       "log_mse": 0,
             *       "local_ssim": 0,
             *       "own": {},
             *       "options": {}
             *     }
             */
            loss: components["schemas"]["LossConfig"];
            /**
             * @default {
             *       "own": [],
             *       "options": {}
             *     }
             */
            metrics: components["schemas"]["MetricsConfig"];
            /**
             * @default {
             *       "kind": "adam",
             *       "lr": 0.001,
             *       "schedule": "plateau",
             *       "warm_up": 0.1,
             *       "plateau_factor": 0.5,
             *       "plateau_patience": 1
             *     }
             */
            optim: components["schemas"]["OptimConfig"];
            /**
             * @default {
             *       "epochs": 10,
             *       "batch_size": 8,
             *       "monitor": "loss",
             *       "patience": 15,
             *       "precision": "float32",
             *       "checkpointing": false,
             *       "seed": 0
             *     }
             */
            train: components["schemas"]["LoopConfig"];
            /** @default {} */
            scaling: components["schemas"]["ScalingConfig"];
            /** @default {} */
            ray: components["schemas"]["RayConfig"];
            /**
             * @default {
             *       "optimizer": false
             *     }
             */
            init: components["schemas"]["InitConfig"];
            /**
             * @default {
             *       "storage": "runs",
             *       "max_failures": 3
             *     }
             */
            run: components["schemas"]["RunConfig"];
            /**
             * @default {
             *       "to": [
             *         "tensorboard"
             *       ],
             *       "images": 2,
             *       "every": 1
             *     }
             */
            track: components["schemas"]["TrackConfig"];
        };
        TrainJob: {
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            kind: "train";
            /**
             * @default {
             *       "recipe": "quickstart",
             *       "target": "truth",
             *       "split": "angles",
             *       "data": {
             *         "augment": "none",
             *         "cache": "none",
             *         "every": 1
             *       },
             *       "window": {
             *         "frozen": false,
             *         "init": "ones",
             *         "kind": "frequency",
             *         "knots": 24,
             *         "options": {},
             *         "photons": "data",
             *         "rank": 3,
             *         "unit": "data"
             *       },
             *       "postprocessing": {
             *         "channels": 16,
             *         "dilations": [
             *           1,
             *           2,
             *           1
             *         ],
             *         "kind": "identity",
             *         "options": {},
             *         "residual": true
             *       },
             *       "loss": {
             *         "edge": 1,
             *         "l1": 0.25,
             *         "local_ssim": 0,
             *         "log_mse": 0,
             *         "ms_ssim": 1,
             *         "mse": 0,
             *         "options": {},
             *         "own": {}
             *       },
             *       "metrics": {
             *         "options": {},
             *         "own": []
             *       },
             *       "optim": {
             *         "kind": "adam",
             *         "lr": 0.001,
             *         "plateau_factor": 0.5,
             *         "plateau_patience": 1,
             *         "schedule": "plateau",
             *         "warm_up": 0.1
             *       },
             *       "train": {
             *         "batch_size": 8,
             *         "checkpointing": false,
             *         "epochs": 10,
             *         "monitor": "loss",
             *         "patience": 15,
             *         "precision": "float32",
             *         "seed": 0
             *       },
             *       "scaling": {},
             *       "ray": {},
             *       "init": {
             *         "optimizer": false
             *       },
             *       "run": {
             *         "max_failures": 3,
             *         "storage": "runs"
             *       },
             *       "track": {
             *         "every": 1,
             *         "images": 2,
             *         "to": [
             *           "tensorboard"
             *         ]
             *       }
             *     }
             */
            config: components["schemas"]["TrainConfig"];
        };
        VolumeData: {
            /** Format: path */
            dir: string;
        };
        VolumeRay: {
            address?: string | null;
        };
        WindowDocument: {
            kind: string;
            frequency: number[];
            analytic: {
                [key: string]: number[];
            };
            window?: number[] | null;
            by_angle?: number[][] | null;
            angle?: number[] | null;
            bands?: number[][] | null;
            gains?: number[][][] | null;
            log_variance?: number[] | null;
            log_energy?: number[] | null;
            /** @default false */
            noise: boolean;
        };
        ProblemDocument: {
            type: string;
            title: string;
            status: number;
            detail: string;
            /** @default  */
            request_id: string;
            /** @default [] */
            errors: {
                [key: string]: string;
            }[];
        };
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export type $defs = Record<string, never>;
export interface operations {
    reconstruct_reconstruct_post: {
        parameters: {
            query?: {
                model?: string | null;
                method?: ("learned" | "fbp") | null;
                window?: ("none" | "shepp-logan" | "cosine" | "hamming" | "hann") | null;
                cutoff?: number | null;
                output?: "npy" | "npz" | "h5" | "tif" | "png" | "dcm" | "json";
                level?: number | null;
                width?: number | null;
            };
            header?: {
                "X-Shape"?: string;
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/octet-stream": string;
                "application/x-npy": string;
                "application/zip": string;
                "application/x-hdf5": string;
                "image/tiff": string;
                "multipart/form-data": {
                    /** Format: binary */
                    sinogram: string;
                    geometry?: string;
                };
            };
        };
        responses: {
            200: {
                headers: {
                    "X-Model"?: string;
                    "X-Model-Version"?: string;
                    "X-Model-Source"?: string;
                    "X-Method"?: string;
                    "X-Geometry"?: string;
                    "X-Value-Unit"?: string;
                    "X-Value-Scale"?: number;
                    "X-Seconds"?: string;
                    "X-Request-Id"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/x-npy": string;
                    "application/zip": string;
                    "application/x-hdf5": string;
                    "image/tiff": string;
                    "image/png": string;
                    "application/dicom": string;
                    "application/json": unknown;
                };
            };
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            408: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            413: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            415: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            422: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
        };
    };
    convert_array_array_post: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/octet-stream": string;
            };
        };
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/x-npy": string;
                };
            };
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            408: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            413: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            415: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            422: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
        };
    };
    list_models_models_get: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ModelList"];
                };
            };
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
        };
    };
    get_model_models__name__get: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ModelDocument"];
                };
            };
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            422: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
        };
    };
    forget_model_models__name__delete: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            422: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            507: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
        };
    };
    activate_model_models__name__activate_post: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Activation"];
            };
        };
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ModelDocument"];
                };
            };
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            413: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            415: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            422: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            507: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
        };
    };
    get_window_models__name__window_get: {
        parameters: {
            query?: {
                cutoff?: number;
            };
            header?: never;
            path: {
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["WindowDocument"];
                };
            };
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            422: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
        };
    };
    get_noise_noise_post: {
        parameters: {
            query?: {
                model?: string;
            };
            header?: {
                "X-Shape"?: string;
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/octet-stream": string;
            };
        };
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/x-npy": string;
                };
            };
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            408: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            413: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            415: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            422: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
        };
    };
    list_jobs_jobs_get: {
        parameters: {
            query?: {
                limit?: number;
                status?: ("pending" | "running" | "succeeded" | "failed" | "stopped" | "lost") | null;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["JobList"];
                };
            };
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            422: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
        };
    };
    submit_jobs_post: {
        parameters: {
            query?: never;
            header?: {
                "idempotency-key"?: string | null;
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["TrainJob"] | components["schemas"]["SweepJob"] | components["schemas"]["EvaluateJob"] | components["schemas"]["ReconstructJob"];
            };
        };
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["JobDocument"];
                };
            };
            201: {
                headers: {
                    Location?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["JobDocument"];
                };
            };
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            409: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            413: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            415: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            422: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            507: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
        };
    };
    get_job_jobs__id__get: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["JobDocument"];
                };
            };
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            422: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
        };
    };
    get_log_jobs__id__logs_get: {
        parameters: {
            query?: {
                follow?: boolean;
            };
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": string;
                };
            };
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            422: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
        };
    };
    get_events_jobs__id__events_get: {
        parameters: {
            query?: never;
            header?: {
                "last-event-id"?: string | null;
            };
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "text/event-stream": string;
                };
            };
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            422: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
        };
    };
    stop_job_jobs__id__stop_post: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["JobDocument"];
                };
            };
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["JobDocument"];
                };
            };
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            409: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            422: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            507: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
        };
    };
    activate_job_jobs__id__activate_post: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: {
            content: {
                "application/json": components["schemas"]["JobActivation"] | null;
            };
        };
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ModelDocument"];
                };
            };
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            409: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            413: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            415: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            422: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            507: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
        };
    };
    list_recipes_recipes_get: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["RecipeList"];
                };
            };
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
        };
    };
    list_runs_runs_get: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["RunList"];
                };
            };
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
        };
    };
    get_report_report_get: {
        parameters: {
            query: {
                place: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "text/html": string;
                };
            };
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            422: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
        };
    };
    get_newest_jobs__id__newest_get: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "image/png": string;
                };
            };
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            422: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
        };
    };
    live_health_live_get: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Health"];
                };
            };
        };
    };
    ready_health_ready_get: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Health"];
                };
            };
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
        };
    };
    metrics_metrics_get: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": unknown;
                };
            };
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
        };
    };
    get_access_access_get: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["AccessDocument"];
                };
            };
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ProblemDocument"];
                };
            };
        };
    };
}
