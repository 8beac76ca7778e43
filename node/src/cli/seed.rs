use super::CliError;

#[derive(Debug, clap::Args)]
pub struct SeedArgs {}

pub async fn run(_args: SeedArgs) -> Result<(), CliError> {
    Err(CliError::Failed("this command is not built in yet".to_owned()))
}
