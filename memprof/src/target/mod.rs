//! What is to be traced: inspection of processes, their maps, threads and modules; launching a held child.
