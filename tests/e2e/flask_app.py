"""The counter as a Flask app, to share sessions with counter.ts.

With KV_URL set, sessions are kept in that key-value service, under the id in the cookie; otherwise
they are Flask's own, in a cookie signed with SECRET_KEY.
"""

import os
import uuid

import requests
from flask import Flask, redirect, session
from flask.sessions import SessionInterface, SessionMixin


class ServerSideSession(dict, SessionMixin):
    def __init__(self, sid, data):
        super().__init__(data)
        self.sid = sid


class ServerSideSessionInterface(SessionInterface):
    def __init__(self, service):
        self.service = service

    def open_session(self, app, request):
        sid = request.cookies.get(self.get_cookie_name(app))
        if sid is not None:
            data = requests.get(f"{self.service}/{sid}").json()[sid]
            if data is not None:
                return ServerSideSession(sid, data)
        return ServerSideSession(str(uuid.uuid4()), {})

    def save_session(self, app, session, response):
        name = self.get_cookie_name(app)
        if session:
            requests.post(self.service, json={session.sid: session}).raise_for_status()
            response.set_cookie(name, session.sid, httponly=True)
        else:
            requests.delete(f"{self.service}/{session.sid}").raise_for_status()
            response.delete_cookie(name)


app = Flask(__name__)
app.secret_key = os.environ.get("SECRET_KEY")
if "KV_URL" in os.environ:
    app.session_interface = ServerSideSessionInterface(os.environ["KV_URL"])


@app.get("/")
def index():
    session["count"] = session.get("count", 0) + 1
    return {**session}


@app.get("/fill")
def fill():
    """Stores enough text for Flask to compress the session."""
    session["text"] = "again and " * 100
    return {**session}


@app.post("/reset")
def reset():
    session.clear()
    return redirect("/", 303)


if __name__ == "__main__":
    app.run(port=0)
