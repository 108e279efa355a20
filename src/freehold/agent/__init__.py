"""The farmer's node agent: makes what runs on this node equal to what the verified ledger wants of it.

Glossary:
    core: pure decisions (`agent.core`); everything else here is the shell that carries them out.
    chain view: the newest verified header and the records that concern this node.
    worker: one per lease; feeds its machine with events and carries out its instructions.
    fence: a term runs only while a fresh header is verified; a watchdog keeps that when the agent is dead.
    duty: probing the targets that invited this node as their witness.
"""
