from google.auth import credentials

class Credentials(credentials.Credentials):
    @property
    def service_account_email(self) -> str: ...
