"""An answer that may not be waited for."""

import threading


def soon(action):
    """Return the error that an action raises within 20 seconds."""
    raised = []

    def run():
        try:
            action()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it waits"
    return raised[0] if raised else None
