"""The techniques of MITRE ATT&CK (enterprise) that the findings are signs of: static tables.

https://attack.mitre.org/techniques/ has each by its number, with the words that stand beside it.
"""

from jail.watch.events import Finding, Rule

RULE_TECHNIQUES = {
    Rule.NETWORK_ATTEMPT: "T1071",  # Application Layer Protocol
    Rule.SECRET_READ: "T1552.001",  # Unsecured Credentials: Credentials In Files
    Rule.SECRET_SENT: "T1041",  # Exfiltration Over C2 Channel
    Rule.PROCESS_SPAWN: "T1059",  # Command and Scripting Interpreter
    Rule.CODE_DYNAMIC: "T1027",  # Obfuscated Files or Information
    Rule.CODE_REMOTE: "T1105",  # Ingress Tool Transfer
    Rule.CODE_GATED: "T1480",  # Execution Guardrails
    Rule.PERSISTENCE_WRITE: "T1546",  # Event Triggered Execution
    Rule.PTH_CODE: "T1546.018",  # Event Triggered Execution: Python Startup Hooks
    Rule.WITNESS_HIDDEN: "T1562.001",  # Impair Defenses: Disable or Modify Tools
    Rule.EVIDENCE_TAMPER: "T1562.001",  # Impair Defenses: Disable or Modify Tools
    Rule.LIMIT_HIT: "T1499",  # Endpoint Denial of Service
}
# Of what waits to be executed, by the kinds of places.py.
PLACE_TECHNIQUES = {
    "shell start": "T1546.004",  # Unix Shell Configuration Modification
    "login session": "T1547.013",  # XDG Autostart Entries
    "login of everybody": "T1546.004",  # Unix Shell Configuration Modification
    "on the command path": "T1574.007",  # Path Interception by PATH Environment Variable
    "remote access and keys": "T1098.004",  # Account Manipulation: SSH Authorized Keys
    "Python start": "T1546.018",  # Python Startup Hooks
    "scheduled jobs": "T1053.003",  # Scheduled Task/Job: Cron
    "loaded into every program": "T1574.006",  # Dynamic Linker Hijacking
    "machine's services": "T1543.002",  # Create or Modify System Process: Systemd Service
    "accounts and rights": "T1098",  # Account Manipulation
    "names and certificates of the machine": "T1565.001",  # Stored Data Manipulation
    "programs of the machine": "T1554",  # Compromise Host Software Binary
    "installed code": "T1554",  # Compromise Host Software Binary
    "settings of the kernel": "T1611",  # Escape to Host
    "somebody's own file": "T1485",  # Data Destruction
    "editor": "T1176.002",  # Software Extensions: IDE Extensions
    "browser's helper program": "T1176.001",  # Software Extensions: Browser Extensions
}
# Of calls by which one process looks into another, by how they begin; the first that fits. Of
# ptrace alone it is not known what is asked for, and who asks for himself wants to know whether he
# is being looked at.
LOOK_TECHNIQUES = {
    "process_vm_readv": "T1003",  # OS Credential Dumping
    "process_vm_writev": "T1055",  # Process Injection
    "ptrace(PTRACE_TRACEME)": "T1622",  # Debugger Evasion
    "ptrace(": "T1055.008",  # Process Injection: Ptrace System Calls
    "": "T1622",  # Debugger Evasion
}
SYSTEM_CHECKS = "T1497.001"  # Virtualization/Sandbox Evasion: System Checks
TIME_BASED_EVASION = "T1497.003"  # Virtualization/Sandbox Evasion: Time Based Checks
DECODED = "T1140"  # Deobfuscate/Decode Files or Information
MASQUERADING = "T1036.005"  # Masquerading: Match Legitimate Resource Name or Location
PROCESS_COMMUNICATION = "T1559"  # Inter-Process Communication
FILE_DISCOVERY = "T1083"  # File and Directory Discovery


def technique_of(kind: str) -> str:
    """The technique of a kind of place, "" where it is the rule's."""
    return PLACE_TECHNIQUES.get(kind, "")


def technique_of_look(call: str) -> str:
    """The technique of `ptrace(PTRACE_ATTACH)`, say."""
    return next(found for start, found in LOOK_TECHNIQUES.items() if call.startswith(start))


def technique_in(finding: Finding) -> str:
    """The technique that a finding is a sign of."""
    return finding.technique or RULE_TECHNIQUES[finding.rule]
