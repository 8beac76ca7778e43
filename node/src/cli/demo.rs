use super::CliError;

#[derive(Debug, clap::Args)]
pub struct DemoArgs {}

pub async fn run(_args: DemoArgs) -> Result<(), CliError> {
    Err(CliError::Failed("this command is not built in yet".to_owned()))
}
