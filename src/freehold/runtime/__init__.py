"""Containers of a host: images, namespaces, limits, networks, volumes, logs, health, the fence.

Glossary:
    runtime: `ContainerRuntime`, the containers of one node; several nodes of one host never meet.
    engine: the OCI runtime program of this host, crun or runc.
    shim: conmon, one per container; owns its output and exit status while agents come and go.
    prefix: eight hex digits, a hash of home and name, in every name that a node makes on the host.
    tenant range: the 65,536 host ids that stand for a tenant's ids 0 to 65,535.
    scratch: what a container may write outside volumes; a sized file, gone with the container.
    volume: a sized file of a deployment, kept until it is removed.
    fence: the time after which a container must not run unless the agent has renewed it.
    watchdog: the process that enforces the fence, also when the agent is dead.
    term log: starts and stops by term and boot time, for eyes outside.
"""
