//! Objects of Kubernetes for the hosts of a fleet. Pure.
//!
//! The pods of an Indexed Job are the hosts. Each has a repository, worktrees, state and ports of its own, and the volume of
//! the fleet. A pod does nothing by itself: the coordinator, in a pod that may run commands in others, enters it for each
//! phase. So the exit code of a pod says nothing about a phase, and no policy of the Job depends on one.

use serde_json::{Value, json};

use crate::cli::yaml;

/// Directory of a host's own files in its pod.
pub(super) const WORKSPACE: &str = "/workspace";

/// Directory of the clone, and of the manifest.
const REPOSITORY: &str = "/workspace/repository";

/// User and group of all processes in the pods. Any number but 0 works: it has to be one number, so that all hosts can write
/// the shared volume.
const USER: u32 = 1000;

/// Number of replacements of a pod that fails, such as one that exceeds its memory.
const REPLACEMENTS: u32 = 3;

/// Process that keeps a pod running until it is deleted. It reaps the processes that others leave.
const IDLE: &str =
    "seedbed --version && git --version || exit 127; trap 'exit 0' TERM; while :; do sleep 3600 & wait; done";

/// Label of the pods of a Job, which Kubernetes sets.
const JOB_LABEL: &str = "batch.kubernetes.io/job-name";

/// Label with the index of a pod, which Kubernetes sets from version 1.28 on.
const INDEX_LABEL: &str = "batch.kubernetes.io/job-completion-index";

/// Label of all pods of a fleet.
const FLEET_LABEL: &str = "app.kubernetes.io/instance";

/// Hosts of a fleet in a cluster. Every text is checked, or may be any text.
pub(super) struct Cluster<'a> {
    pub(super) swarm: &'a str,
    /// Name of the objects, a label of DNS.
    pub(super) name: String,
    /// Number of hosts, at least 1.
    pub(super) pods: u32,
    /// Mount point of the shared volume.
    pub(super) directory: String,
    pub(super) image: &'a str,
    /// Repository, as `git clone` reads it.
    pub(super) repository: &'a str,
    /// Time after which the pods end, at least 1.
    pub(super) seconds: u64,
    pub(super) cpu: &'a str,
    pub(super) memory: &'a str,
    pub(super) storage: &'a str,
    pub(super) storage_class: Option<&'a str>,
}

impl Cluster<'_> {
    /// Returns the names of the hosts, with a comma between them. Each is also the pod's name in DNS.
    pub(super) fn hosts(&self) -> String {
        let name = &self.name;
        (0..self.pods).map(|index| format!("{name}-{index}.{name}")).collect::<Vec<_>>().join(",")
    }

    /// Returns the launcher of the coordinator. The name of a pod has a random end, so its index finds it.
    fn launcher(&self) -> String {
        let name = &self.name;
        format!(
            "h={{host}}; h=${{h%%.*}}; p=$(kubectl get pod --output=name --field-selector=status.phase=Running \
             --selector={JOB_LABEL}={name},{INDEX_LABEL}=${{h##*-}}) && kubectl exec \"$p\" --container=host -- sh -c {{command}}"
        )
    }

    /// Returns the file: all objects, and the commands that use them. `mark` is a sentence without an end.
    pub(super) fn document(&self, mark: &str) -> String {
        let name = &self.name;
        let objects = [
            self.claim(),
            self.service(),
            self.object("v1", "ServiceAccount", &json!({})),
            self.role(),
            self.binding(),
            self.coordinator(),
            self.job(),
        ];
        let mut text = format!(
            "# Hosts of the fleet of swarm {}: the pods of Job {name}. Pod {name}-coordinator runs the commands.\n\
             #\n\
             #     kubectl apply -f FILE\n\
             #     kubectl wait --for=jsonpath='{{.status.ready}}'={} --timeout=10m job/{name}\n\
             #     kubectl wait --for=condition=Ready --timeout=10m pod/{name}-coordinator\n\
             #     kubectl exec {name}-coordinator -- sh -c 'seedbed fleet apply \"$FLEET\" --hosts \"$HOSTS\" --launcher \"$LAUNCHER\"'\n\
             #     kubectl exec {name}-coordinator -- sh -c 'seedbed fleet status \"$FLEET\"'\n\
             #     kubectl exec {name}-coordinator -- sh -c 'seedbed fleet destroy \"$FLEET\" --yes'\n\
             #     kubectl delete -f FILE\n\
             #\n\
             # Worktrees are lost with their pod: see that work has left it first.\n\
             #\n\
             # {mark}.\n",
            self.swarm, self.pods
        );
        for object in objects {
            text.push_str("---\n");
            text.push_str(&yaml::document(&object));
        }
        text
    }

    fn object(&self, version: &str, kind: &str, more: &Value) -> Value {
        let mut object = json!({ "apiVersion": version, "kind": kind, "metadata": { "name": self.name } });
        for (key, value) in more.as_object().into_iter().flatten() {
            object[key] = value.clone();
        }
        object
    }

    fn claim(&self) -> Value {
        let mut spec = json!({
            "accessModes": ["ReadWriteMany"],
            "resources": { "requests": { "storage": self.storage } },
        });
        if let Some(class) = self.storage_class {
            spec["storageClassName"] = json!(class);
        }
        self.object("v1", "PersistentVolumeClaim", &json!({ "spec": spec }))
    }

    /// Returns the service that gives the pods names in DNS.
    fn service(&self) -> Value {
        let selector = json!({ JOB_LABEL: self.name });
        let spec = json!({ "clusterIP": "None", "publishNotReadyAddresses": true, "selector": selector });
        self.object("v1", "Service", &json!({ "spec": spec }))
    }

    /// Returns the rights of the coordinator. Kubernetes cannot limit `exec` to the pods of one Job.
    fn role(&self) -> Value {
        let rules = json!([
            { "apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"] },
            { "apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create", "get"] },
        ]);
        self.object("rbac.authorization.k8s.io/v1", "Role", &json!({ "rules": rules }))
    }

    fn binding(&self) -> Value {
        let name = &self.name;
        let more = json!({
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name },
            "subjects": [{ "kind": "ServiceAccount", "name": name }],
        });
        self.object("rbac.authorization.k8s.io/v1", "RoleBinding", &more)
    }

    fn coordinator(&self) -> Value {
        let environment =
            [("FLEET", self.directory.clone()), ("HOSTS", self.hosts()), ("LAUNCHER", self.launcher())];
        let mut spec = self.pod("coordinator", &environment);
        spec["serviceAccountName"] = json!(self.name);
        spec["activeDeadlineSeconds"] = json!(self.seconds);
        let mut pod = self.object("v1", "Pod", &json!({ "spec": spec }));
        pod["metadata"] = json!({ "name": format!("{}-coordinator", self.name), "labels": self.labels() });
        pod
    }

    fn job(&self) -> Value {
        let mut pod = self.pod("host", &[]);
        pod["automountServiceAccountToken"] = json!(false);
        pod["subdomain"] = json!(self.name);
        let spec = json!({
            "completionMode": "Indexed",
            "completions": self.pods,
            "parallelism": self.pods,
            "backoffLimitPerIndex": REPLACEMENTS,
            // Two pods with one index would be two hosts with one name.
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": { "rules": [
                // A pod that cannot clone fails again, and an image without the programs does so in every pod.
                { "action": "FailJob", "onExitCodes": { "containerName": "repository", "operator": "NotIn", "values": [0] } },
                { "action": "FailJob", "onExitCodes": { "containerName": "host", "operator": "In", "values": [127] } },
                { "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] },
            ] },
            "activeDeadlineSeconds": self.seconds,
            "template": { "metadata": { "labels": self.labels() }, "spec": pod },
        });
        self.object("batch/v1", "Job", &json!({ "spec": spec }))
    }

    fn labels(&self) -> Value {
        json!({ FLEET_LABEL: self.name, "app.kubernetes.io/managed-by": "seedbed" })
    }

    /// Returns the specification of a pod with a container of this name, and a clone of the repository.
    fn pod(&self, container: &str, environment: &[(&str, String)]) -> Value {
        let own = [("HOME", WORKSPACE.to_owned()), ("SEEDBED_STATE_DIR", format!("{WORKSPACE}/state"))];
        let variables = |more: &[(&str, String)]| {
            let all = own.iter().chain(more);
            all.map(|(name, value)| json!({ "name": name, "value": literal(value) })).collect::<Vec<_>>()
        };
        let security = json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } });
        let resources = json!({
            "requests": { "cpu": self.cpu, "memory": self.memory },
            "limits": { "memory": self.memory },
        });
        let mounts = json!([
            { "name": "workspace", "mountPath": WORKSPACE },
            { "name": "fleet", "mountPath": self.directory },
        ]);
        json!({
            "restartPolicy": "Never",
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            "initContainers": [{
                "name": "repository",
                "image": self.image,
                "command": ["git", "clone", "--quiet", "--", literal(self.repository), REPOSITORY],
                "env": variables(&[]),
                "resources": resources,
                "securityContext": security,
                "volumeMounts": mounts,
            }],
            "containers": [{
                "name": container,
                "image": self.image,
                "command": ["sh", "-c", IDLE],
                "workingDir": REPOSITORY,
                "env": variables(environment),
                "resources": resources,
                "securityContext": security,
                "volumeMounts": mounts,
            }],
            "volumes": [
                { "name": "workspace", "emptyDir": {} },
                { "name": "fleet", "persistentVolumeClaim": { "claimName": self.name } },
            ],
        })
    }
}

/// Returns a text that Kubernetes does not expand: it replaces `$(NAME)` in commands and variables.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}
