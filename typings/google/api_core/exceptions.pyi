import requests

class GoogleAPICallError(Exception):
    code: int | None
    @property
    def message(self) -> str: ...
    @property
    def response(self) -> requests.Response | None: ...

def from_http_response(response: requests.Response) -> GoogleAPICallError: ...
