//! Two emulators of AWS: `ministack` enforces key states, IAM and signatures, `moto` has
//! real authenticated encryption, ReEncrypt and rotation. Neither has both.

use std::sync::Arc;

use serde_json::{Value, json};

use super::admin::Admin;
use super::{Process, Shared, http, python_program, script};

pub(crate) struct Aws {
    pub(crate) process: Process,
    admin: Admin,
}

static MINISTACK: Shared<Aws> = Shared::new();
static MOTO: Shared<Aws> = Shared::new();

pub(crate) fn ministack() -> Result<Arc<Aws>, String> {
    MINISTACK.get(|| {
        let process = Process::start(
            "ministack",
            |port, dir| {
                let mut command = python_program("ministack");
                // It binds every interface unless told, with MQTT and SFTP whatever it is told.
                command
                    .env("IOT_MTLS_ENABLED", "0")
                    .env("SFTP_ENABLED", "0")
                    .env("BIND_HOST", "127.0.0.1")
                    .env("GATEWAY_PORT", port.to_string())
                    .env("AUTH", "true")
                    .env("HOME", dir)
                    .current_dir(dir);
                command
            },
            |port, _| answers(&format!("http://127.0.0.1:{port}/_ministack/health")),
        )?;
        Aws::with(process)
    })
}

pub(crate) fn moto() -> Result<Arc<Aws>, String> {
    MOTO.get(|| {
        let process = Process::start(
            "moto",
            |port, dir| {
                let mut command = python_program("moto_server");
                command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).current_dir(dir);
                command
            },
            |port, _| answers(&format!("http://127.0.0.1:{port}/moto-api/")),
        )?;
        Aws::with(process)
    })
}

fn answers(url: &str) -> bool {
    http::try_send("GET", url, None, &[], "").is_ok_and(|(status, _)| status == 200)
}

impl Aws {
    fn with(process: Process) -> Result<Self, String> {
        let endpoint = format!("http://127.0.0.1:{}", process.port);
        let admin = Admin::start(script("aws_admin.py").args([&endpoint, "test", "test"]))?;
        Ok(Self { process, admin })
    }

    /// A call by the administrator; panics unless it succeeds.
    pub(crate) fn call(&self, service: &str, call: &str, with: Value) -> Value {
        self.admin.call(&json!({"service": service, "call": call, "with": with}))
    }

    /// A new key; answers its ARN.
    pub(crate) fn new_key(&self) -> String {
        let made = self.call("kms", "create_key", json!({}));
        made["KeyMetadata"]["Arn"].as_str().expect("an ARN").to_owned()
    }

    /// A new user that may do all with keys: id and secret of its access key.
    pub(crate) fn new_user(&self, name: &str) -> (String, String) {
        self.call("iam", "create_user", json!({"UserName": name}));
        self.allow(name);
        let made = self.call("iam", "create_access_key", json!({"UserName": name}));
        let field = |field: &str| made["AccessKey"][field].as_str().expect(field).to_owned();
        (field("AccessKeyId"), field("SecretAccessKey"))
    }

    pub(crate) fn allow(&self, user: &str) {
        let policy = json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": "kms:*", "Resource": "*"}]});
        let with =
            json!({"UserName": user, "PolicyName": "p", "PolicyDocument": policy.to_string()});
        self.call("iam", "put_user_policy", with);
    }

    pub(crate) fn deny(&self, user: &str) {
        self.call("iam", "delete_user_policy", json!({"UserName": user, "PolicyName": "p"}));
    }

    pub(crate) fn uri(&self, arn: &str) -> String {
        format!("aws-kms://{arn}?endpoint=http://127.0.0.1:{}", self.process.port)
    }
}
